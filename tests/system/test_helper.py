"""The helper, asked as the daemon asks it: it holds no more memory for having been asked often."""

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


def test_what_is_asked_again_and_again_costs_no_memory(service: Service) -> None:
    """Its unit has a limit, so that what is lost with each request would end it one day."""
    # Each of its threads has a stack and its first allocations.
    destroy_what_is_not_there(200)
    before = resident_kb()
    destroy_what_is_not_there(500)
    assert resident_kb() - before < 2000
