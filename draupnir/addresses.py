"""Parses and normalises IP addresses and networks; an IPv4 address mapped into IPv6 becomes IPv4."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Cidr = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")
_LONGEST_TEXT = 64


def read_ip_address(text: str) -> Address:
    """Parse an address, without its zone (`%eth0`), which has a meaning only on one machine. Raises ValueError."""
    if len(text) > _LONGEST_TEXT:
        raise ValueError("too long for an address")
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def read_cidr(text: str) -> Cidr:
    """Parse a network such as `10.0.0.0/8`, or a single address. Raises ValueError."""
    if len(text) > _LONGEST_TEXT:
        raise ValueError("too long for a network")
    cidr = ip_network(text)
    if isinstance(cidr, IPv6Network) and cidr.subnet_of(_MAPPED):
        mapped = cidr.network_address.ipv4_mapped
        assert mapped is not None
        return IPv4Network((mapped, cidr.prefixlen - _MAPPED.prefixlen))
    return cidr


def write_cidr(cidr: Cidr) -> str:
    """Format a network. A network with a single address is written as that address."""
    return str(cidr.network_address) if cidr.prefixlen == cidr.max_prefixlen else str(cidr)
