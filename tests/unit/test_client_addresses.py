from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import hypothesis
import pytest
from hypothesis import strategies as st
from starlette.types import Scope

from draupnir.addresses import Address
from draupnir.api.client_addresses import client_address_of
from draupnir.settings import Settings

TRUSTED = ("10.0.0.0/8", "fd00::/8")
BEHIND_PROXIES = Settings.model_validate({"use_x_forwarded_for": True, "trusted_proxy_cidrs": TRUSTED})
BY_ITSELF = Settings.model_validate({"use_x_forwarded_for": False, "trusted_proxy_cidrs": TRUSTED})

PROXIES = st.one_of(st.ip_addresses(network="10.0.0.0/8"), st.ip_addresses(network="fd00::/8"))
STRANGERS = st.one_of(st.ip_addresses(network="203.0.113.0/24"), st.ip_addresses(network="2001:db8::/32"))
GARBAGE = st.one_of(
    st.binary(max_size=80), st.sampled_from([b"unknown", b"_hidden", b"1.2.3", b"::g", b"[", b"%", b""])
)


def request(peer: str | None, *headers: bytes) -> Scope:
    return {
        "type": "http",
        "client": None if peer is None else (peer, 50000),
        "headers": [(b"x-forwarded-for", header) for header in headers],
    }


@st.composite
def written(draw: st.DrawFn, address: Address) -> bytes:
    """Generate an address in a format of proxies."""
    ways = [str(address)]
    if isinstance(address, IPv4Address):
        ways += [f"{address}:4711", f"::ffff:{address}", f"[::ffff:{address}]:80", f" {address}\t"]
    else:
        ways += [address.exploded.upper(), f"[{address}]", f"[{address}]:4711", f"{address}%eth0"]
    return draw(st.sampled_from(ways)).encode()


@hypothesis.given(st.data(), STRANGERS, PROXIES, st.lists(PROXIES, max_size=3), GARBAGE)
def test_the_client_address_is_the_last_one_from_a_trusted_proxy(
    data: st.DataObject, client: Address, peer: Address, chain: list[Address], said_by_client: bytes
) -> None:
    elements = [said_by_client] + [data.draw(written(each)) for each in (client, *chain)]
    assert client_address_of(request(str(peer), b",".join(elements)), BEHIND_PROXIES) == client
    # The result is the same with any number of headers.
    assert client_address_of(request(str(peer), *elements), BEHIND_PROXIES) == client


@hypothesis.given(STRANGERS, st.lists(GARBAGE, max_size=4))
def test_headers_of_untrusted_peers_are_ignored(peer: Address, headers: list[bytes]) -> None:
    assert client_address_of(request(str(peer), *headers, b"10.0.0.1, 192.0.2.1"), BEHIND_PROXIES) == peer


@hypothesis.given(PROXIES, st.lists(GARBAGE, max_size=4))
def test_without_the_setting_the_header_is_ignored(peer: Address, headers: list[bytes]) -> None:
    assert client_address_of(request(str(peer), *headers, b"192.0.2.1"), BY_ITSELF) == peer


@hypothesis.given(PROXIES, PROXIES, GARBAGE)
def test_garbage_ends_the_chain_at_the_last_valid_address(peer: Address, proxy: Address, garbage: bytes) -> None:
    header = b"192.0.2.1," + garbage.replace(b",", b"") + b"x," + str(proxy).encode()
    assert client_address_of(request(str(peer), header), BEHIND_PROXIES) == proxy


@hypothesis.given(st.one_of(st.none(), st.text(max_size=80)), st.lists(st.binary(max_size=80), max_size=4))
def test_no_input_raises_an_error(peer: str | None, headers: list[bytes]) -> None:
    for settings in (BEHIND_PROXIES, BY_ITSELF):
        client_address_of(request(peer, *headers), settings)


@pytest.mark.parametrize(
    ("peer", "header", "source"),
    [
        ("10.0.0.1", b"", "10.0.0.1"),
        ("::ffff:10.0.0.1", b"192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.9", b"192.0.2.1", "192.0.2.9"),
        ("fd00::1%eth0", b"2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", b"10.0.0.2, 10.0.0.3", "10.0.0.2"),
        ("10.0.0.1", b"192.0.2.1, 192.0.2.2", "192.0.2.2"),
        ("10.0.0.1", b"1.2.3.4:", "10.0.0.1"),
        ("10.0.0.1", b"010.1.2.3", "10.0.0.1"),
        ("testclient", b"192.0.2.1", None),
    ],
)
def test_each_case_has_its_client_address(peer: str, header: bytes, source: str | None) -> None:
    found = client_address_of(request(peer, header), BEHIND_PROXIES)
    assert found == (None if source is None else ip_address(source))
    assert not (isinstance(found, IPv6Address) and found.ipv4_mapped)
