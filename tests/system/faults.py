"""Ways to hurt the service on purpose: kill at a chosen system call, hold its parts still, fill its disk."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.system.service import Service, run
from tests.system.world import DATA

DAEMON, HELPER, METADATA = "draupnir.service", "draupnir-helper.service", "draupnir-metadata.service"
FILLER = DATA / "filler"
CONFIGURATION = Path("/etc/draupnir/config.toml")


def await_that(condition: Callable[[], object], what: str, within_s: float = 300) -> None:
    """Poll until the condition holds; what is expected is said when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.01)


def main_pid(unit: str) -> int:
    """The main process of the unit, 0 if it has none."""
    return int(run("systemctl", "show", "--value", "-p", "MainPID", unit).stdout)


def processes(unit: str) -> list[int]:
    """Every process of the unit, without asking systemd: for catching a job in its first moments."""
    groups = Path("/sys/fs/cgroup").rglob(f"{unit}/cgroup.procs")
    with suppress(OSError):
        return [int(pid) for group in groups for pid in group.read_text().split()]
    return []


def kill(unit: str, number: signal.Signals = signal.SIGKILL) -> None:
    """Send the signal to every process of the unit, and see to it that it has arrived."""
    pid = main_pid(unit)
    run("systemctl", "kill", "--kill-whom=all", f"--signal={number.name}", unit)
    if number is signal.SIGKILL and pid:
        await_that(lambda: main_pid(unit) != pid, f"{unit} is dead")


def restart(*units: str) -> None:
    """Restart the units in order; after the bus also logind, which does not notice and lets every sign-in wait."""
    for unit in units:
        run("systemctl", "restart", unit)
        if unit == "dbus":
            run("systemctl", "try-restart", "systemd-logind")


def await_healthy(service: Service) -> None:
    """The service answers that daemon, helper and metadata are well."""

    def healthy() -> bool:
        with suppress(httpx.TransportError):
            return service.ask("GET", "/health_check").status_code == 200
        return False

    await_that(healthy, "the service is well")


@contextmanager
def injected(unit: str, *inject: str) -> Iterator[None]:
    """Meanwhile strace tampers with the system calls of the unit's processes, each as in `strace -e inject=…`."""
    calls = {each.partition(":")[0] for each in inject}
    options = [part for each in inject for part in ("-e", f"inject={each}")]
    command = ["strace", "-f", "-q", "-e", f"trace={','.join(calls)}", *options, "-o", "/dev/null"]
    with traced(unit, command):
        yield


@contextmanager
def traced(unit: str, command: list[str]) -> Iterator[None]:
    """Meanwhile the strace command is attached to the unit's main process."""
    pid = main_pid(unit)
    tracer = subprocess.Popen([*command, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        await_that(lambda: f"TracerPid:\t{tracer.pid}" in _status(pid), "strace is attached")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=300)


def _status(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/status").read_text()
    return ""


@contextmanager
def filled(leaving_mib: int) -> Iterator[None]:
    """Meanwhile the data filesystem has only so much room left."""
    try:
        fill(leaving_mib)
        yield
    finally:
        FILLER.unlink(missing_ok=True)
        os.sync()


@contextmanager
def configured(service: Service, text: str) -> Iterator[None]:
    """Meanwhile the service runs with this before the rest of its configuration."""
    before = CONFIGURATION.read_text()
    try:
        CONFIGURATION.write_text(text + before)
        run("systemctl", "restart", HELPER, DAEMON)
        await_healthy(service)
        yield
    finally:
        CONFIGURATION.write_text(before)
        run("systemctl", "restart", HELPER, DAEMON)
        await_healthy(service)


def low_mib() -> int:
    """With less room than that on the data disk nothing new is made: a twentieth of it, or 20 GiB."""
    found = os.statvfs(DATA)
    return min(20 * 1024, found.f_blocks * found.f_frsize // 20 // 1024**2)


def fill(leaving_mib: int) -> None:
    """Take all room of the data filesystem but so much, until FILLER is removed."""
    # Whatever was deleted gives its room back only now, and would do so under the test's feet.
    run("btrfs", "subvolume", "sync", DATA)
    os.sync()
    with FILLER.open("ab") as file:
        # What is free shrinks by more than what was asked for, since metadata take room too; so, in several goes.
        for _ in range(8):
            free_bytes = os.statvfs(DATA).f_bavail * os.statvfs(DATA).f_frsize - leaving_mib * 1024 * 1024
            if free_bytes < 1024 * 1024:
                return
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free_bytes)
