"""The journal has the output of instances and jobs, and journald creates no separate file for each of them."""

from __future__ import annotations

from pathlib import Path

from tests.system.faults import await_that, main_pid
from tests.system.service import Service, run
from tests.system.test_sandbox import uid_of
from tests.system.world import DATA


def files_of_users() -> set[str]:
    run("journalctl", "--sync")
    return {path.name for path in Path("/var/log/journal").glob("*/user-*.journal")}


def lines_of(unit: str, journal: str = "*") -> str:
    return run("journalctl", f"--namespace={journal}", "--unit", unit, "--output=cat").stdout


def test_journald_makes_no_file_for_an_instance_or_a_job(service: Service, backup: Path) -> None:
    before = files_of_users()
    image_id = service.make_image(backup)
    instance_id = int(service.create_instance(image_id)["id"])
    service.answer(instance_id, "SELECT 1")
    assert lines_of(f"draupnir-finalise-{image_id}")
    assert "ready to accept connections" in lines_of(f"draupnir-instance-{instance_id}")
    service.destroy_image(image_id)
    assert files_of_users() <= before


def test_no_user_of_an_instance_writes_into_the_journal_of_the_server(service: Service, instance: int) -> None:
    """The journal has a size limit, so a flood would delete the audit log."""
    warning = "written-by-the-user-of-an-instance"
    service.answer(instance, f"DO $$ BEGIN RAISE WARNING '{warning}'; END $$")
    unit = f"draupnir-instance-{instance}"
    await_that(lambda: warning in lines_of(unit, "draupnir"), "it is in the journal of the instances")
    assert warning not in run("journalctl", "--output=export", "--all").stdout


def test_an_instance_of_the_first_versions_keeps_its_uid(service: Service, instance: int) -> None:
    service.answer(instance, "CREATE TABLE kept AS SELECT 1")
    former, data = 0x78000000 + instance, DATA / f"instances/{instance}"
    units = [f"draupnir-port-{instance}.socket", f"draupnir-instance-{instance}.service"]
    run("systemctl", "stop", "draupnir")
    run("systemctl", "stop", *units)
    run("find", data, "-user", str(uid_of(instance)), "-exec", "chown", "-h", f"{former}:{former}", "{}", "+")
    run("systemctl", "start", "draupnir")
    await_that(lambda: service.psql(instance, "SELECT 1", ok=False).returncode == 0, "it is back")
    assert service.answer(instance, "SELECT count(*) FROM kept") == "1"
    assert f"Uid:\t{former}\t" in Path(f"/proc/{main_pid(units[1])}/status").read_text()


def test_container_managers_see_that_the_uids_are_taken() -> None:
    for first in (0x68000000, 0x6C000000):
        assert run("getent", "passwd", str(first)).stdout.startswith("draupnir-i")
