"""Fault injection: kill at a chosen system call, freeze processes, fill the disk."""

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
    """Poll until the condition holds; after a timeout fail with the expectation."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.01)


def main_pid(unit: str) -> int:
    """Return the main process of the unit, 0 if it has none."""
    return int(run("systemctl", "show", "--value", "-p", "MainPID", unit).stdout)


def processes(unit: str) -> list[int]:
    """Return every process of the unit, without systemd, to catch a job right after its start."""
    groups = Path("/sys/fs/cgroup").rglob(f"{unit}/cgroup.procs")
    with suppress(OSError):
        return [int(pid) for group in groups for pid in group.read_text().split()]
    return []


def kill(unit: str, number: signal.Signals = signal.SIGKILL) -> None:
    """Send the signal to every process of the unit, and wait for its effect."""
    pid = main_pid(unit)
    run("systemctl", "kill", "--kill-whom=all", f"--signal={number.name}", unit)
    if number is signal.SIGKILL and pid:
        await_that(lambda: main_pid(unit) != pid, f"{unit} is dead")


def restart(*units: str) -> None:
    """Restart the units in order; after the bus also logind, which would otherwise delay every login."""
    for unit in units:
        run("systemctl", "restart", unit)
        if unit == "dbus":
            run("systemctl", "try-restart", "systemd-logind")


def await_healthy(service: Service) -> None:
    """Wait until the health check reports ok."""

    def healthy() -> bool:
        with suppress(httpx.TransportError):
            return service.ask("GET", "/health_check").status_code == 200
        return False

    await_that(healthy, "the service is healthy")


@contextmanager
def injected(unit: str, *inject: str) -> Iterator[None]:
    """Inject faults into system calls of the unit's processes during the block, as in `strace -e inject=…`."""
    calls = {each.partition(":")[0] for each in inject}
    options = [part for each in inject for part in ("-e", f"inject={each}")]
    command = ["strace", "-f", "-q", "-e", f"trace={','.join(calls)}", *options, "-o", "/dev/null"]
    with traced(unit, command):
        yield


@contextmanager
def traced(unit: str, command: list[str]) -> Iterator[None]:
    """Attach the strace command to the unit's main process during the block."""
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
    """Reduce the free space of the data filesystem during the block."""
    try:
        fill(leaving_mib)
        yield
    finally:
        FILLER.unlink(missing_ok=True)
        os.sync()


@contextmanager
def configured(service: Service, text: str) -> Iterator[None]:
    """Run the service with these lines before the rest of its configuration during the block."""
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
    """Return the free space below which nothing new is created: a twentieth of the data disk, or 20 GiB."""
    found = os.statvfs(DATA)
    return min(20 * 1024, found.f_blocks * found.f_frsize // 20 // 1024**2)


def fill(leaving_mib: int) -> None:
    """Fill the data filesystem up to the given free space, until FILLER is removed."""
    # Wait until deleted data are freed, which would otherwise happen during the test.
    run("btrfs", "subvolume", "sync", DATA)
    os.sync()
    with FILLER.open("ab") as file:
        # Fill in several steps, because metadata take space, too.
        for _ in range(8):
            free_bytes = os.statvfs(DATA).f_bavail * os.statvfs(DATA).f_frsize - leaving_mib * 1024 * 1024
            if free_bytes < 1024 * 1024:
                return
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free_bytes)
