"""Calls systemd over D-Bus, with one connection for each request. No other module uses D-Bus or pystemd.

Method and property names are those of org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

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
_UNIT_EXISTS = b"org.freedesktop.systemd1.UnitExists"  # pystemd defines no class for it
# pystemd defines classes for these errors; others are a plain DBusBaseError with the name.
_REFUSALS = (
    DBusNoSuchUnitError, DBusFailedError, DBusAccessDeniedError, DBusInvalidArgsError, DBusUnknownMethodError,
    DBusUnknownPropertyError, DBusPropertyReadOnlyError, DBusNotSupportedError,
)  # fmt: skip
_SHUTTING_DOWN = frozenset(
    {b"org.freedesktop.systemd1.ShuttingDown", b"org.freedesktop.systemd1.TransactionIsDestructive"}
)

Error = DBusBaseError
NoSuchUnit = DBusNoSuchUnitError
GONE = (DBusNoSuchUnitError, DBusUnknownObjectError)

Bus: TypeAlias = DBus
Properties = Mapping[str, object]


class _Session(threading.local):
    """The state of this thread: the stack that closes its connection to the bus, and the connection after first use."""

    end: ExitStack | None = None
    bus: DBus | None = None


_session = _Session()


@contextmanager
def session() -> Iterator[None]:
    """Share one connection to the bus for all calls of this thread in the block, opened on first use."""
    with ExitStack() as _session.end:
        try:
            yield
        finally:
            _session.end = _session.bus = None


@contextmanager
def opened() -> Iterator[DBus]:
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
    """Return whether systemd itself refused, and not the bus, and not because of a shutdown or reload."""
    if isinstance(error, _REFUSALS):
        return True
    name: bytes | str = error.err_name
    return isinstance(name, bytes) and name.startswith(_SYSTEMD) and name not in _SHUTTING_DOWN


def call(bus: DBus, method: str, signature: bytes, *arguments: object) -> object:
    return bus.call_method(_SYSTEMD, _PATH, _MANAGER, method.encode(), apply_signature(signature, list(arguments))).body


def start_transient(
    bus: Bus, name: str, properties: Properties, companions: Sequence[tuple[str, Properties]] = ()
) -> bool:
    """Create and start a transient unit, and create its companions. Return False if a unit of that name exists."""
    arguments = apply_signature(b"ss", [name.encode(), b"fail"]) + signature_array(_encoded(properties))
    arguments += [(ord(b"a"), b"(sa(sv))")]
    for companion, companion_properties in companions:
        arguments += [(ord(b"r"), b"sa(sv)"), *apply_signature(b"s", [companion.encode()])]
        arguments += [*signature_array(_encoded(companion_properties)), (-1, None)]
    arguments += [(-1, None)]
    try:
        bus.call_method(_SYSTEMD, _PATH, _MANAGER, b"StartTransientUnit", arguments)
    except DBusBaseError as error:
        if error.err_name != _UNIT_EXISTS:
            raise
        return False
    return True


def set_properties(bus: Bus, name: str, properties: Iterable[tuple[str, object]]) -> None:
    """Set properties of a loaded unit at runtime, in this order; a property may occur several times."""
    arguments = apply_signature(b"sb", [name.encode(), True]) + [(ord(b"a"), b"(sv)")]
    for key, value in properties:
        arguments += signature_array(_encoded({key: value}))[1:-1]
    arguments += [(-1, None)]
    bus.call_method(_SYSTEMD, _PATH, _MANAGER, b"SetUnitProperties", arguments)


def manager_property(bus: Bus, property_name: str) -> object:
    """Return a string property of systemd itself."""
    return bus.get_property(_SYSTEMD, _PATH, _MANAGER, property_name.encode(), b"s")


def unit_property(bus: Bus, name: str, property_name: str, signature: bytes) -> object:
    """Return a property of a loaded service or socket."""
    path = path_encode(b"/org/freedesktop/systemd1/unit", name.encode())
    kind = b".Socket" if name.endswith(".socket") else b".Service"
    return bus.get_property(_SYSTEMD, path, _SYSTEMD + kind, property_name.encode(), signature)


def _encoded(properties: Properties) -> dict[str, object]:
    """Encode strings to bytes for pystemd, also inside one level of lists and tuples."""

    def encode(value: object) -> object:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, list | tuple):
            return type(value)(encode(item) for item in value)
        return value

    return {key: encode(value) for key, value in properties.items()}
