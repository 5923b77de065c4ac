"""From where the sockets of a unit are reached: systemd's IPAddressAllow= and IPAddressDeny=."""

from __future__ import annotations

import functools
import socket
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network

from draupnir_helper import bus

# Read of a unit with IPAccounting=: what is counted by the same means as filtered, or this where there are none.
_NOT_COUNTED = 2**64 - 1
_EVERYWHERE = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

Network = IPv4Network | IPv6Network


def admission(addresses: Sequence[Network] | None) -> dict[str, object]:
    """The properties that have a unit's sockets reached from these networks only; None is from everywhere."""
    if addresses is None:
        return {"IPAddressAllow": [], "IPAddressDeny": []}
    return {"IPAddressAllow": _prefixes(addresses), "IPAddressDeny": _prefixes(_EVERYWHERE)}


def admit(name: str, addresses: Sequence[Network] | None) -> None:
    """Change from where the sockets of a loaded unit are reached, open connections included, in one step."""
    with bus.opened() as opened:
        # What is set is added to what was, except that nothing takes all away.
        pairs = [
            (key, each) for key, value in admission(addresses).items() for each in ([[], value] if value else [[]])
        ]
        bus.set_properties(opened, name, pairs)


def admitted(*names: str) -> dict[str, list[Network] | None]:
    """From where the sockets of each unit are reached, None for everywhere; units that went away are left out."""
    found: dict[str, list[Network] | None] = {}
    with bus.opened() as opened:
        for name in names:
            with suppress(*bus.GONE):
                denied = _networks(opened, name, "IPAddressDeny")
                found[name] = _networks(opened, name, "IPAddressAllow") if denied else None
    return found


@functools.cache
def filters_addresses() -> bool:
    """Whether `admit` has any effect here: our own service has IPAccounting=, and its bytes are counted only if so.

    Asked once in the life of the helper, at its start: after `systemctl daemon-reexec` the filters of units go on, and
    systemd does not find its counters again until a unit is started again.
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
