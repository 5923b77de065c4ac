"""Laws of too many connections: a network that holds many loses its own, and no other network's."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from draupnir.api.limits import ClientNetwork
from draupnir.serving.admission import Connections


class Fake:
    """A connection of a network that remembers whether it was cut."""

    def __init__(self, network: ClientNetwork) -> None:
        self.network = network
        self.is_cut = False

    def cut(self) -> None:
        self.is_cut = True


ONE, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def admitted(connections: Connections, *sources: ClientNetwork) -> list[Fake]:
    links = [Fake(network) for network in sources]
    for link in links:
        assert connections.admit(link)
    return links


def cut(links: list[Fake]) -> list[bool]:
    return [link.is_cut for link in links]


def test_a_source_with_too_many_connections_loses_the_longest_waiting_one() -> None:
    connections = Connections(most=10, of_one_network=3)
    (others,) = admitted(connections, OTHER)
    links = admitted(connections, ONE, ONE, ONE)
    assert not any(cut([others, *links]))
    connections.waits(links[0])  # for its next request, from now on
    admitted(connections, ONE)
    assert cut([others, *links]) == [False, False, True, False]


def test_above_the_total_limit_the_longest_waiting_connection_is_closed() -> None:
    connections = Connections(most=3, of_one_network=3)
    links = admitted(connections, ONE, OTHER, None)
    admitted(connections, OTHER)
    assert cut(links) == [True, False, False]


def test_a_connection_is_never_closed_during_an_answer() -> None:
    connections = Connections(most=2, of_one_network=2)
    links = admitted(connections, ONE, ONE)
    for link in links:
        connections.works(link)
    assert not connections.admit(Fake(ONE))
    assert not connections.admit(Fake(OTHER))
    assert not any(cut(links))
    connections.waits(links[1])
    admitted(connections, OTHER)
    assert cut(links) == [False, True]


def test_this_machine_and_trusted_proxies_have_only_the_total_limit() -> None:
    connections = Connections(proxies=[ip_network("10.1.0.0/24")])
    for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.1.0.7", None):
        assert connections.network_of_host(host) is None
    assert connections.network_of_host("10.2.0.7") == ip_address("10.2.0.7")
    assert connections.network_of_host("::ffff:10.2.0.7") == ip_address("10.2.0.7")
    assert connections.network_of_host("2001:db8::1%eth0") == connections.network_of_host("2001:db8::2")
    crowd = Connections(most=100, of_one_network=2)
    assert not any(cut(admitted(crowd, *[None] * 100)))


def test_a_revoked_user_no_longer_counts() -> None:
    connections = Connections(most=2, of_one_network=1)
    for _ in range(5):
        (link,) = admitted(connections, ONE)
        connections.leave(link)
        connections.leave(link)
        connections.waits(link)
    links = admitted(connections, ONE, OTHER)
    assert not any(cut(links))


def test_shedding_is_reported_once_and_not_for_each(caplog: pytest.LogCaptureFixture) -> None:
    connections = Connections(most=100, of_one_network=2)
    admitted(connections, *[ONE] * 50)
    (record,) = caplog.records
    assert "192.0.2.1" in record.getMessage()
