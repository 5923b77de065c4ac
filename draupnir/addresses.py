"""IP addresses and networks as the service compares them: IPv4 is always IPv4, also where IPv6 carries it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Cidr = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")
_LONGEST_TEXT = 64


def read_ip_address(text: str) -> Address:
    """An address, without the zone (`%eth0`) that means something on one machine only; raises ValueError."""
    if len(text) > _LONGEST_TEXT:
        raise ValueError("too long for an address")
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def read_cidr(text: str) -> Cidr:
    """A network such as `10.0.0.0/8`, or an address for itself alone; raises ValueError."""
    if len(text) > _LONGEST_TEXT:
        raise ValueError("too long for a network")
    cidr = ip_network(text)
    if isinstance(cidr, IPv6Network) and cidr.subnet_of(_MAPPED):
        mapped = cidr.network_address.ipv4_mapped
        assert mapped is not None
        return IPv4Network((mapped, cidr.prefixlen - _MAPPED.prefixlen))
    return cidr


def write_cidr(cidr: Cidr) -> str:
    """A network as people write it: an address by itself where it holds no other."""
    return str(cidr.network_address) if cidr.prefixlen == cidr.max_prefixlen else str(cidr)
