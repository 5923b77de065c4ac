"""The helper's memory does not grow with the number of requests."""

from __future__ import annotations

import asyncio
from pathlib import Path

from draupnir.helper import HelperClient
from draupnir_helper.wire import MAX_ID, DestroyInstance
from tests.system.faults import HELPER, main_pid
from tests.system.service import Service


def resident_kb() -> int:
    status = Path(f"/proc/{main_pid(HELPER)}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def destroy_what_is_not_there(times: int) -> None:
    async def ask() -> None:
        for _ in range(times):
            await HelperClient().ask(DestroyInstance(instance_id=MAX_ID))

    asyncio.run(ask())


def test_repeated_requests_leak_no_memory(service: Service) -> None:
    """Its unit has a memory limit, so a leak would kill it one day."""
    # Each thread has a stack and initial allocations.
    destroy_what_is_not_there(200)
    before = resident_kb()
    destroy_what_is_not_there(500)
    assert resident_kb() - before < 2000
