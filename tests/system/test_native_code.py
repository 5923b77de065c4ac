"""Native code in an instance's sandbox, through an untrusted language or a bug in Postgres, cannot create new code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import inside, world
from tests.system.backups import MAJOR
from tests.system.faults import await_that
from tests.system.service import Service, run
from tests.system.world import DATA

# System calls that turn data into code, or that are useful only to attack the kernel or another process.
NEVER_NEEDED = frozenset(
    {
        "memfd_create", "memfd_secret", "execveat", "userfaultfd", "process_vm_readv", "process_vm_writev",
        "remap_file_pages", "vmsplice", "io_uring_setup", "bpf", "perf_event_open", "ptrace", "keyctl", "mount",
    }
)  # fmt: skip

IN_PLACE_OF_POSTGRES = f"""
[Unit]
StopWhenUnneeded=no
[Service]
Type=oneshot
Restart=no
ExecStop=
BindReadOnlyPaths=/usr/bin
ExecStart=
ExecStart=/usr/bin/python3 -I -c 'exec(open("/run/draupnir/instance/inside.py").read())' {MAJOR} /srv/pgdata/probes.json
"""


@pytest.fixture(scope="module")
def answers(service: Service, image: int) -> Iterator[dict[str, str]]:
    """Provide the result of each probe, run by the unit of an instance in its sandbox."""
    world.await_quiet()
    before = world.observe()
    instance_id = int(service.create_instance(image)["id"])
    unit = f"draupnir-instance-{instance_id}.service"
    drop_in = Path(f"/run/systemd/system/{unit}.d/99-probe.conf")
    shutil.copy(inside.__file__, f"/run/draupnir/instances/{instance_id}/inside.py")
    Path(f"/run/draupnir/instances/{instance_id}/inside.py").chmod(0o644)
    drop_in.parent.mkdir()
    try:
        drop_in.write_text(IN_PLACE_OF_POSTGRES)
        run("systemctl", "daemon-reload")
        run("systemctl", "restart", unit)
        yield json.loads((DATA / f"instances/{instance_id}/probes.json").read_text())
    finally:
        shutil.rmtree(drop_in.parent)
        run("systemctl", "daemon-reload")
        service.destroy_instance(instance_id)
        world.await_equal(before)


def test_the_probes_run_programs_or_they_would_prove_nothing(answers: dict[str, str]) -> None:
    assert answers["a program of Postgres's"] == "done"


@pytest.mark.parametrize("name", inside.probes(str(MAJOR)))
def test_native_code_in_an_instance_cannot(answers: dict[str, str], name: str) -> None:
    assert answers[name] == "refused"


def allowed_calls(unit: str) -> set[str]:
    """Return the system call filter of the loaded unit."""
    listed = run("systemctl", "show", "--value", "--property=SystemCallFilter", unit).stdout.split()
    assert "read" in listed, "a list of what is allowed"
    return set(listed)


def test_no_sandbox_lets_a_program_make_code(service: Service, backup: Path, instance: int) -> None:
    service.answer(instance, "SELECT 1")
    for unit in (f"draupnir-instance-{instance}.service", f"draupnir-port-{instance}.service"):
        assert not allowed_calls(unit) & NEVER_NEEDED, unit
    image_id = service.create_image("SELECT pg_sleep(3600);")
    service.upload(image_id, backup)
    service.finalise(image_id, headers={"Prefer": "respond-async"})
    for kind in ("extract", "finalise"):
        unit = f"draupnir-{kind}-{image_id}.service"
        await_that(lambda unit=unit: run("systemctl", "is-active", unit, ok=False).returncode == 0, f"{unit} runs")  # type: ignore[misc]
        assert not allowed_calls(unit) & (NEVER_NEEDED | {"ioctl"}), unit
    service.destroy_image(image_id)
