"""An entry of the trash that cannot be deleted is reported, because it occupies space on the disk."""

from __future__ import annotations

from tests.system.faults import await_that
from tests.system.service import Service, run
from tests.system.world import DATA


def journal(unit: str, since: str) -> str:
    return run("journalctl", "--namespace=*", "--unit", unit, "--since", f"@{since}", "--output=cat").stdout


def test_doctor_and_journal_name_trash_that_cannot_be_deleted(service: Service) -> None:
    entry = DATA / "trash" / "put-there-by-hand"
    began = run("date", "+%s").stdout.strip()
    entry.touch()
    try:
        await_that(lambda: entry.name in run("draupnir", "doctor", ok=False).stdout, "doctor names it")
        assert f"rm -rf /run/draupnir/data/trash/{entry.name}" in run("draupnir", "doctor", ok=False).stdout
        for unit in ("draupnir", "draupnir-helper"):
            await_that(lambda unit=unit: entry.name in journal(unit, began), f"{unit} names it")  # type: ignore[misc]
    finally:
        entry.unlink()
    await_that(lambda: entry.name not in run("draupnir", "doctor", ok=False).stdout, "doctor has forgotten it")
