"""systemd units over D-Bus; the only module that speaks it, and the only one that imports pystemd.

Static settings stand in prefix drop-ins (`draupnir-instance-.service.d/`), so a call passes only what differs.
Method and property names are those of org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import functools
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from pystemd.dbusexc import (
    DBusAccessDeniedError,
    DBusBaseError,
    DBusFailedError,
    DBusInvalidArgsError,
    DBusNoSuchUnitError,
    DBusNotSupportedError,
    DBusPropertyReadOnlyError,
    DBusUnknownMethodError,
    DBusUnknownObjectError,
    DBusUnknownPropertyError,
)
from pystemd.dbuslib import DBus, apply_signature, path_encode
from pystemd.systemd1.unit_signatures import signature_array

from draupnir_helper.errors import HelperError
from draupnir_helper.wire import ErrorCode

_SYSTEMD = b"org.freedesktop.systemd1"
_PATH = b"/org/freedesktop/systemd1"
_MANAGER = b"org.freedesktop.systemd1.Manager"
_UNIT_EXISTS = b"org.freedesktop.systemd1.UnitExists"  # pystemd has no class for it
# What pystemd has classes for; errors with other names are DBusBaseError itself, with the name.
_REFUSALS = (
    DBusNoSuchUnitError, DBusFailedError, DBusAccessDeniedError, DBusInvalidArgsError, DBusUnknownMethodError,
    DBusUnknownPropertyError, DBusPropertyReadOnlyError, DBusNotSupportedError,
)  # fmt: skip
_SHUTTING_DOWN = frozenset(
    {b"org.freedesktop.systemd1.ShuttingDown", b"org.freedesktop.systemd1.TransactionIsDestructive"}
)
_GONE = frozenset({"inactive", "failed"})

# Read of a unit with IPAccounting=: what is counted by the same means as filtered, or this where there are none.
_NOT_COUNTED = 2**64 - 1
_EVERYWHERE = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

Properties = Mapping[str, object]
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Unit:
    """A loaded unit: ActiveState and SubState, and whether a job is queued for it."""

    name: str
    active: str
    sub: str
    job_queued: bool


class _Session(threading.local):
    """What this thread has open: what closes its connection to the bus, and the connection once there is one."""

    end: ExitStack | None = None
    bus: DBus | None = None


_session = _Session()


@contextmanager
def session() -> Iterator[None]:
    """One connection to the bus for all that this thread asks meanwhile, opened when something first is."""
    with ExitStack() as _session.end:
        try:
            yield
        finally:
            _session.end = _session.bus = None


@contextmanager
def _bus() -> Iterator[DBus]:
    try:
        if _session.end is None:
            with DBus() as bus:
                yield bus
        else:
            if _session.bus is None:
                _session.bus = _session.end.enter_context(DBus())
            yield _session.bus
    except DBusBaseError as error:
        message = error.err_message.decode() if isinstance(error.err_message, bytes) else str(error)
        if _is_refusal(error):
            raise HelperError(ErrorCode.UNIT_FAILED, f"systemd refused: {message}") from error
        raise HelperError(ErrorCode.BUSY, f"systemd does not answer now: {message}") from error


def _is_refusal(error: DBusBaseError) -> bool:
    """Whether systemd said no for good: not the bus for it, nor systemd because it is shutting down or loading anew."""
    if isinstance(error, _REFUSALS):
        return True
    name: bytes | str = error.err_name
    return isinstance(name, bytes) and name.startswith(_SYSTEMD) and name not in _SHUTTING_DOWN


def _call(bus: DBus, method: str, signature: bytes, *arguments: object) -> object:
    return bus.call_method(_SYSTEMD, _PATH, _MANAGER, method.encode(), apply_signature(signature, list(arguments))).body


def version() -> str:
    """systemd's version, as it tells it."""
    with _bus() as bus:
        return str(bus.get_property(_SYSTEMD, _PATH, _MANAGER, b"Version", b"s").decode())


def find(*patterns: str) -> list[Unit]:
    """The loaded units whose names match one of the glob patterns."""
    with _bus() as bus:
        return _find(bus, *patterns)


def _find(bus: DBus, *patterns: str) -> list[Unit]:
    rows = _call(bus, "ListUnitsByPatterns", b"asas", [], [pattern.encode() for pattern in patterns])
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
    path = path_encode(b"/org/freedesktop/systemd1/unit", name.encode())
    with _bus() as bus:
        value = bus.get_property(_SYSTEMD, path, _SYSTEMD + b".Service", property_name.encode(), b"s")
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


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
    with _bus() as bus:
        arguments = apply_signature(b"ss", [name.encode(), b"fail"]) + signature_array(_encoded(properties))
        arguments += [(ord(b"a"), b"(sa(sv))")]
        for companion, companion_properties in companions:
            arguments += [(ord(b"r"), b"sa(sv)"), *apply_signature(b"s", [companion.encode()])]
            arguments += [*signature_array(_encoded(companion_properties)), (-1, None)]
        arguments += [(-1, None)]
        for pause_s in _pauses(time.monotonic() + timeout_s):
            try:
                bus.call_method(_SYSTEMD, _PATH, _MANAGER, b"StartTransientUnit", arguments)
            except DBusBaseError as error:
                if error.err_name != _UNIT_EXISTS:
                    raise
                time.sleep(pause_s)
            else:
                return
        raise HelperError(ErrorCode.BUSY, f"{name} still exists from before; try again in a moment.")


def begin(name: str, *, again: bool = False) -> None:
    """Have a loaded unit started, or started again, and what it wants; nothing is waited for."""
    with _bus() as bus:
        _call(bus, "RestartUnit" if again else "StartUnit", b"ss", name.encode(), b"replace")


def await_job(name: str, *, timeout_s: float = 30) -> None:
    """Wait until no job is queued for the unit. Raises UNIT_FAILED when it is gone."""
    with _bus() as bus:
        for pause_s in _pauses(time.monotonic() + timeout_s):
            found = _find(bus, name)
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
    with _bus() as bus:
        for pause_s in _pauses(time.monotonic() + timeout_s):
            # One that has ended well is forgotten at once.
            found = _find(bus, name)
            if not found or (found[0].active == "inactive" and not found[0].job_queued):
                return
            if found[0].active == "failed":
                _call(bus, "ResetFailedUnit", b"s", name.encode())
                raise HelperError(ErrorCode.UNIT_FAILED, f"{name} failed; see journalctl -u {name}.")
            time.sleep(pause_s)
    raise HelperError(ErrorCode.BUSY, f"{name} did not end in time; see journalctl -u {name}.")


def reload(name: str) -> None:
    """Have the main process of a service read its configuration again; one that does not run is fine."""
    with _bus() as bus:
        if any(unit.active not in _GONE for unit in _find(bus, name)):
            with suppress(DBusBaseError):  # it may be gone by now
                _call(bus, "KillUnit", b"ssi", name.encode(), b"main", signal.SIGHUP)


def describe(name: str, description: str) -> None:
    """Change the description of a unit, as long as it is loaded; an absent one is fine."""
    with _bus() as bus, suppress(DBusNoSuchUnitError):
        # Looked for first: pystemd loses memory with each call that systemd refuses, some ten kilobytes.
        if not _find(bus, name):
            return
        arguments = apply_signature(b"sb", [name.encode(), True])
        arguments += signature_array(_encoded({"Description": description}))
        bus.call_method(_SYSTEMD, _PATH, _MANAGER, b"SetUnitProperties", arguments)


def admission(addresses: Sequence[Network] | None) -> dict[str, object]:
    """The properties that have a unit's sockets reached from these networks only; None is from everywhere."""
    if addresses is None:
        return {"IPAddressAllow": [], "IPAddressDeny": []}
    return {"IPAddressAllow": _prefixes(addresses), "IPAddressDeny": _prefixes(_EVERYWHERE)}


def admit(name: str, addresses: Sequence[Network] | None) -> None:
    """Change from where the sockets of a loaded unit are reached, open connections included, in one step."""
    with _bus() as bus:
        arguments = apply_signature(b"sb", [name.encode(), True]) + [(ord(b"a"), b"(sv)")]
        for key, value in admission(addresses).items():
            # What is set is added to what was, except that nothing takes all away.
            for each in ([], value) if value else ([],):
                arguments += signature_array({key: each})[1:-1]
        arguments += [(-1, None)]
        bus.call_method(_SYSTEMD, _PATH, _MANAGER, b"SetUnitProperties", arguments)


def admitted(*names: str) -> dict[str, list[Network] | None]:
    """From where the sockets of each unit are reached, None for everywhere; units that went away are left out."""
    found: dict[str, list[Network] | None] = {}
    with _bus() as bus:
        for name in names:
            with suppress(DBusNoSuchUnitError, DBusUnknownObjectError):
                denied = _networks(bus, name, b"IPAddressDeny")
                found[name] = _networks(bus, name, b"IPAddressAllow") if denied else None
    return found


@functools.cache
def filters_addresses() -> bool:
    """Whether `admit` has any effect here: our own service has IPAccounting=, and its bytes are counted only if so.

    Asked once in the life of the helper, at its start: after `systemctl daemon-reexec` the filters of units go on, and
    systemd does not find its counters again until a unit is started anew.
    """
    path = path_encode(b"/org/freedesktop/systemd1/unit", b"draupnir-helper.service")
    with _bus() as bus:
        counted = bus.get_property(_SYSTEMD, path, _SYSTEMD + b".Service", b"IPIngressBytes", b"t")
    return bool(counted != _NOT_COUNTED)


def _prefixes(addresses: Sequence[Network]) -> list[object]:
    return [(_FAMILIES[each.version], each.network_address.packed, each.prefixlen) for each in addresses]


def _networks(bus: DBus, name: str, property_name: bytes) -> list[Network]:
    path = path_encode(b"/org/freedesktop/systemd1/unit", name.encode())
    kind = b".Socket" if name.endswith(".socket") else b".Service"
    rows = bus.get_property(_SYSTEMD, path, _SYSTEMD + kind, property_name, b"a(iayu)")
    assert isinstance(rows, list)
    return [(IPv4Network if row[0] == socket.AF_INET else IPv6Network)((bytes(row[1]), row[2])) for row in rows]


def stop(*names: str, kill: bool = False, timeout_s: float = 120) -> None:
    """Stop units in this order, wait until each is down, and let systemd forget them; absent ones are fine.

    With `kill` a service gets no chance to end in order: nothing of it is wanted any more. One that is only starting
    gets none either: Postgres is the first process of its namespace, and hears no signal before it listens for it.
    """
    with _bus() as bus:
        deadline = time.monotonic() + timeout_s
        # Looked for first, as in `describe`.
        loaded = {unit.name for unit in _find(bus, *names)}
        for name in names:
            # Or gone with the one before.
            if name not in loaded or not (found := _find(bus, name)):
                continue
            try:
                _call(bus, "StopUnit", b"ss", name.encode(), b"replace")
                if (kill or found[0].active == "activating") and name.endswith(".service"):
                    _kill(bus, name)
            except DBusNoSuchUnitError:
                continue
            for pause_s in _pauses(deadline):
                found = _find(bus, name)
                if not found or (found[0].active in _GONE and not found[0].job_queued):
                    break
                time.sleep(pause_s)
            else:
                raise HelperError(
                    ErrorCode.BUSY, f"{name} did not stop within {timeout_s:.0f} s; it is still being stopped."
                )
        for unit in _find(bus, *loaded) if loaded else ():
            with suppress(DBusNoSuchUnitError):
                _call(bus, "ResetFailedUnit", b"s", unit.name.encode())


def _kill(bus: DBus, name: str) -> None:
    if not any(unit.active not in _GONE for unit in _find(bus, name)):
        return
    with suppress(DBusBaseError):  # it may be gone by now
        _call(bus, "KillUnit", b"ssi", name.encode(), b"all", signal.SIGKILL)


def _pauses(deadline: float) -> Iterator[float]:
    """Ever longer pauses, 1 ms to 50 ms, until the deadline: state in PID 1 has no event that pystemd delivers."""
    pause_s = 0.001
    yield pause_s
    while time.monotonic() < deadline:
        pause_s = min(pause_s * 1.5, 0.05)
        yield pause_s


def _encoded(properties: Properties) -> dict[str, object]:
    """Strings to bytes, as pystemd wants them, in values one list or tuple deep as well."""

    def encode(value: object) -> object:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, list | tuple):
            return type(value)(encode(item) for item in value)
        return value

    return {key: encode(value) for key, value in properties.items()}
