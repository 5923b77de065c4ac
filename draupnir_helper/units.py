"""Finds, starts, stops and describes systemd units.

Static settings are in prefix drop-ins (`draupnir-instance-.service.d/`), so a call passes only the other settings.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from draupnir_helper import bus
from draupnir_helper.bus import Bus, Properties
from draupnir_helper.errors import HelperError
from draupnir_helper.wire import ErrorCode

_GONE = frozenset({"inactive", "failed"})


@dataclass(frozen=True, slots=True)
class Unit:
    """A loaded unit: ActiveState and SubState, and whether a job is queued for it."""

    name: str
    active: str
    sub: str
    job_queued: bool


def version() -> str:
    """Return systemd's version."""
    with bus.opened() as opened:
        return _text(bus.manager_property(opened, "Version"))


def find(*patterns: str) -> list[Unit]:
    """Return the loaded units whose names match one of the glob patterns."""
    with bus.opened() as opened:
        return _find(opened, *patterns)


def _find(opened: Bus, *patterns: str) -> list[Unit]:
    rows = bus.call(opened, "ListUnitsByPatterns", b"asas", [], [pattern.encode() for pattern in patterns])
    assert isinstance(rows, list)
    return [Unit(row[0].decode(), row[3].decode(), row[4].decode(), row[7] != 0) for row in rows]


def find_one(name: str) -> Unit | None:
    """Return the loaded unit of that name, or None."""
    found = find(name)
    return found[0] if found else None


def condition(unit: Unit) -> str:
    """Return the ActiveState, or "failed" for a failed service that waits for its restart."""
    return "failed" if unit.sub == "auto-restart" else unit.active


def service_property(name: str, property_name: str) -> str:
    """Return a string property of a loaded service, such as StatusText or Result."""
    with bus.opened() as opened:
        return _text(bus.unit_property(opened, name, property_name, b"s"))


def start_transient(name: str, properties: Properties) -> None:
    """Create and start a transient unit, and wait for its start job. Raises UNIT_FAILED if it does not start."""
    begin_transient(name, properties)
    await_job(name)


def begin_transient(
    name: str, properties: Properties, companions: Sequence[tuple[str, Properties]] = (), *, timeout_s: float = 30
) -> None:
    """Create a transient unit and queue its start, with companions that are created but not started.

    If systemd is still unloading a unit of that name, wait for it.
    """
    with bus.opened() as opened:
        for pause_s in _pauses(time.monotonic() + timeout_s):
            if bus.start_transient(opened, name, properties, companions):
                return
            time.sleep(pause_s)
        raise HelperError(ErrorCode.BUSY, f"systemd is still unloading an earlier {name}; try again in a moment.")


def begin(name: str, *, again: bool = False) -> None:
    """Queue the start or the restart of a loaded unit and its dependencies, without waiting."""
    with bus.opened() as opened:
        bus.call(opened, "RestartUnit" if again else "StartUnit", b"ss", name.encode(), b"replace")


def await_job(name: str, *, timeout_s: float = 30) -> None:
    """Wait until no job is queued for the unit. Raises UNIT_FAILED if the unit is unloaded."""
    with bus.opened() as opened:
        for pause_s in _pauses(time.monotonic() + timeout_s):
            found = _find(opened, name)
            if not found:
                raise HelperError(
                    ErrorCode.UNIT_FAILED, f"{name} ended at once; see journalctl --namespace=* -u {name}."
                )
            if not found[0].job_queued:
                return
            time.sleep(pause_s)
    raise HelperError(ErrorCode.BUSY, f"{name} did not start in time; see journalctl --namespace=* -u {name}.")


def run(name: str, *, timeout_s: float = 60) -> None:
    """Run a oneshot service of a unit file to its end. Raises UNIT_FAILED if it fails."""
    begin(name)
    with bus.opened() as opened:
        for pause_s in _pauses(time.monotonic() + timeout_s):
            # systemd unloads a successful unit at once.
            found = _find(opened, name)
            if not found or (found[0].active == "inactive" and not found[0].job_queued):
                return
            if found[0].active == "failed":
                bus.call(opened, "ResetFailedUnit", b"s", name.encode())
                raise HelperError(ErrorCode.UNIT_FAILED, f"{name} failed; see journalctl -u {name}.")
            time.sleep(pause_s)
    raise HelperError(ErrorCode.BUSY, f"{name} did not end in time; see journalctl -u {name}.")


def reload(name: str) -> None:
    """Make the main process of a service reload its configuration; do nothing if it does not run."""
    with bus.opened() as opened:
        if any(unit.active not in _GONE for unit in _find(opened, name)):
            with suppress(bus.Error):  # it may be gone by now
                bus.call(opened, "KillUnit", b"ssi", name.encode(), b"main", signal.SIGHUP)


def describe(name: str, description: str) -> None:
    """Change the description of a loaded unit; do nothing if it is not loaded."""
    with bus.opened() as opened, suppress(bus.NoSuchUnit):
        # Find the unit first: pystemd leaks about ten kilobytes with each call that systemd refuses.
        if not _find(opened, name):
            return
        bus.set_properties(opened, name, [("Description", description)])


def stop(*names: str, kill: bool = False, timeout_s: float = 120) -> None:
    """Stop units in this order, wait until each is inactive, and unload them. Ignore missing ones.

    `kill` sends SIGKILL to a service whose data are no longer needed. A service that is still starting is killed, too:
    Postgres is PID 1 of its namespace, so signals have no effect until it installs its handlers. A service that has not
    stopped after most of the time is killed: code of a superuser may ignore signals, and delay systemd's own timeouts.
    """
    with bus.opened() as opened:
        deadline = time.monotonic() + timeout_s
        patience = deadline - timeout_s / 4
        # Find the units first, as in `describe`.
        loaded = {unit.name for unit in _find(opened, *names)}
        for name in names:
            # The stop of an earlier unit may have unloaded this one.
            if name not in loaded or not (found := _find(opened, name)):
                continue
            try:
                bus.call(opened, "StopUnit", b"ss", name.encode(), b"replace")
                if (kill or found[0].active == "activating") and name.endswith(".service"):
                    _kill(opened, name)
            except bus.NoSuchUnit:
                continue
            for pause_s in _pauses(deadline):
                found = _find(opened, name)
                if not found or (found[0].active in _GONE and not found[0].job_queued):
                    break
                if time.monotonic() > patience and name.endswith(".service"):
                    _kill(opened, name)
                time.sleep(pause_s)
            else:
                raise HelperError(
                    ErrorCode.BUSY, f"{name} did not stop within {timeout_s:.0f} s; it is still being stopped."
                )
        for unit in _find(opened, *loaded) if loaded else ():
            with suppress(bus.NoSuchUnit):
                bus.call(opened, "ResetFailedUnit", b"s", unit.name.encode())


def _kill(opened: Bus, name: str) -> None:
    if not any(unit.active not in _GONE for unit in _find(opened, name)):
        return
    with suppress(bus.Error):  # it may be gone by now
        bus.call(opened, "KillUnit", b"ssi", name.encode(), b"all", signal.SIGKILL)


def _pauses(deadline: float) -> Iterator[float]:
    """Yield growing pauses, 1 ms to 50 ms, until the deadline. pystemd delivers no events for the state of units."""
    pause_s = 0.001
    yield pause_s
    while time.monotonic() < deadline:
        pause_s = min(pause_s * 1.5, 0.05)
        yield pause_s


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""
