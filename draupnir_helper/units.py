"""systemd units: found, started, stopped and described.

Static settings stand in prefix drop-ins (`draupnir-instance-.service.d/`), so a call passes only what differs.
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
    """systemd's version, as it tells it."""
    with bus.opened() as opened:
        return _text(bus.manager_property(opened, "Version"))


def find(*patterns: str) -> list[Unit]:
    """The loaded units whose names match one of the glob patterns."""
    with bus.opened() as opened:
        return _find(opened, *patterns)


def _find(opened: Bus, *patterns: str) -> list[Unit]:
    rows = bus.call(opened, "ListUnitsByPatterns", b"asas", [], [pattern.encode() for pattern in patterns])
    assert isinstance(rows, list)
    return [Unit(row[0].decode(), row[3].decode(), row[4].decode(), row[7] != 0) for row in rows]


def find_one(name: str) -> Unit | None:
    """The loaded unit of that name, if there is one."""
    found = find(name)
    return found[0] if found else None


def condition(unit: Unit) -> str:
    """ActiveState, except that a service which waits to be started again, having failed, has failed."""
    return "failed" if unit.sub == "auto-restart" else unit.active


def service_property(name: str, property_name: str) -> str:
    """A string property of a loaded service, such as StatusText or Result."""
    with bus.opened() as opened:
        return _text(bus.unit_property(opened, name, property_name, b"s"))


def start_transient(name: str, properties: Properties) -> None:
    """Make and start a transient unit, and wait for its start job. Raises UNIT_FAILED when it does not come up."""
    begin_transient(name, properties)
    await_job(name)


def begin_transient(
    name: str, properties: Properties, companions: Sequence[tuple[str, Properties]] = (), *, timeout_s: float = 30
) -> None:
    """Make a transient unit and have it started, with companions that are made but not started.

    A unit of that name that is just being forgotten is waited for.
    """
    with bus.opened() as opened:
        for pause_s in _pauses(time.monotonic() + timeout_s):
            if bus.start_transient(opened, name, properties, companions):
                return
            time.sleep(pause_s)
        raise HelperError(ErrorCode.BUSY, f"{name} still exists from before; try again in a moment.")


def begin(name: str, *, again: bool = False) -> None:
    """Have a loaded unit started, or started again, and what it wants; nothing is waited for."""
    with bus.opened() as opened:
        bus.call(opened, "RestartUnit" if again else "StartUnit", b"ss", name.encode(), b"replace")


def await_job(name: str, *, timeout_s: float = 30) -> None:
    """Wait until no job is queued for the unit. Raises UNIT_FAILED when it is gone."""
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
    """Run a oneshot service of a unit file to its end. Raises UNIT_FAILED when it fails."""
    begin(name)
    with bus.opened() as opened:
        for pause_s in _pauses(time.monotonic() + timeout_s):
            # One that has ended well is forgotten at once.
            found = _find(opened, name)
            if not found or (found[0].active == "inactive" and not found[0].job_queued):
                return
            if found[0].active == "failed":
                bus.call(opened, "ResetFailedUnit", b"s", name.encode())
                raise HelperError(ErrorCode.UNIT_FAILED, f"{name} failed; see journalctl -u {name}.")
            time.sleep(pause_s)
    raise HelperError(ErrorCode.BUSY, f"{name} did not end in time; see journalctl -u {name}.")


def reload(name: str) -> None:
    """Have the main process of a service read its configuration again; one that does not run is fine."""
    with bus.opened() as opened:
        if any(unit.active not in _GONE for unit in _find(opened, name)):
            with suppress(bus.Error):  # it may be gone by now
                bus.call(opened, "KillUnit", b"ssi", name.encode(), b"main", signal.SIGHUP)


def describe(name: str, description: str) -> None:
    """Change the description of a unit, as long as it is loaded; an absent one is fine."""
    with bus.opened() as opened, suppress(bus.NoSuchUnit):
        # Looked for first: pystemd loses memory with each call that systemd refuses, some ten kilobytes.
        if not _find(opened, name):
            return
        bus.set_properties(opened, name, [("Description", description)])


def stop(*names: str, kill: bool = False, timeout_s: float = 120) -> None:
    """Stop units in this order, wait until each is down, and let systemd forget them; absent ones are fine.

    With `kill` a service gets no chance to end in order: nothing of it is wanted any more. One that is only starting
    gets none either: Postgres is the first process of its namespace, and hears no signal before it listens for it.
    """
    with bus.opened() as opened:
        deadline = time.monotonic() + timeout_s
        # Looked for first, as in `describe`.
        loaded = {unit.name for unit in _find(opened, *names)}
        for name in names:
            # Or gone with the one before.
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
    """Ever longer pauses, 1 ms to 50 ms, until the deadline: state in PID 1 has no event that pystemd delivers."""
    pause_s = 0.001
    yield pause_s
    while time.monotonic() < deadline:
        pause_s = min(pause_s * 1.5, 0.05)
        yield pause_s


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""
