"""Sets and reads the allowlist of a unit's sockets: systemd's IPAddressAllow= and IPAddressDeny=."""

from __future__ import annotations

import functools
import socket
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network

from draupnir_helper import bus
from draupnir_helper.errors import HelperError
from draupnir_helper.wire import LOOPBACK, ErrorCode

# The value of IPIngressBytes if systemd cannot count bytes. Counting and filtering both need BPF.
_NOT_COUNTED = 2**64 - 1
_EVERYWHERE = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

Network = IPv4Network | IPv6Network


def require(addresses: Sequence[Network] | None) -> None:
    """Raise HelperError if systemd cannot filter, because it would open the port to everybody without an error."""
    if addresses is not None and not filters_addresses():
        detail = "systemd cannot filter addresses here; it needs cgroup2 and a kernel that lets it load BPF programs."
        raise HelperError(ErrorCode.UNIT_FAILED, detail)


def admission(addresses: Sequence[Network] | None) -> dict[str, object]:
    """Return the properties that restrict a unit's sockets to these networks and LOOPBACK. None restricts nothing."""
    if addresses is None:
        return {"IPAddressAllow": [], "IPAddressDeny": []}
    return {"IPAddressAllow": _prefixes([*LOOPBACK, *addresses]), "IPAddressDeny": _prefixes(_EVERYWHERE)}


def admit(name: str, addresses: Sequence[Network] | None) -> None:
    """Replace the allowlist of a loaded unit's sockets in one step. It applies to open connections, too."""
    with bus.opened() as opened:
        # systemd appends a new value to the old ones; an empty value clears them.
        pairs = [
            (key, each) for key, value in admission(addresses).items() for each in ([[], value] if value else [[]])
        ]
        bus.set_properties(opened, name, pairs)


def admitted(*names: str) -> dict[str, list[Network] | None]:
    """Return the allowlist of each unit's sockets, or None for no restriction. Skip units that no longer exist."""
    found: dict[str, list[Network] | None] = {}
    with bus.opened() as opened:
        for name in names:
            with suppress(*bus.GONE):
                denied = _networks(opened, name, "IPAddressDeny")
                found[name] = _networks(opened, name, "IPAddressAllow") if denied else None
    return found


@functools.cache
def filters_addresses() -> bool:
    """Return whether `admit` has an effect here. Our own service has IPAccounting=, which needs BPF like the filter.

    The helper checks this once, when it starts. After `systemctl daemon-reexec` filters still work, but systemd finds
    the counters of a unit again only after a restart of the unit.
    """
    with bus.opened() as opened:
        counted = bus.unit_property(opened, "draupnir-helper.service", "IPIngressBytes", b"t")
    return bool(counted != _NOT_COUNTED)


def _prefixes(addresses: Sequence[Network]) -> list[object]:
    return [(_FAMILIES[each.version], each.network_address.packed, each.prefixlen) for each in addresses]


def _networks(opened: bus.Bus, name: str, property_name: str) -> list[Network]:
    rows = bus.unit_property(opened, name, property_name, b"a(iayu)")
    assert isinstance(rows, list)
    return [(IPv4Network if row[0] == socket.AF_INET else IPv6Network)((bytes(row[1]), row[2])) for row in rows]
