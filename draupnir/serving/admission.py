"""Counts the API's connections by client network, and closes some if there are too many."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from draupnir.addresses import Cidr, read_ip_address
from draupnir.api.limits import TELL_AGAIN_S, ClientNetwork, Lines, network_of

log = logging.getLogger(__name__)

# A TLS connection takes a third of a megabyte of memory; MemoryMax= and LimitNOFILE= allow this number.
MAX_CONNECTIONS = 1000
MAX_OF_ONE_NETWORK = 256


class Link(Protocol):
    """The interface of an open connection."""

    network: ClientNetwork

    def cut(self) -> None:
        """Close the connection at once."""


class Connections:
    """Every connection from its acceptance to its end.

    Above the limit, the connection that has waited longest for its client is closed. A network with many connections
    loses its own, so it cannot exclude others.
    """

    def __init__(
        self, most: int = MAX_CONNECTIONS, of_one_network: int = MAX_OF_ONE_NETWORK, proxies: Sequence[Cidr] = ()
    ) -> None:
        self._most, self._of_one_network, self._proxies = most, of_one_network, proxies
        self._open: set[Link] = set()
        self._counts: dict[ClientNetwork, int] = {}
        self._waiting: OrderedDict[Link, None] = OrderedDict()
        self._told_at_s = -TELL_AGAIN_S
        self.lines = Lines()

    def network_of_host(self, host: str | None) -> ClientNetwork:
        """Return the network of a peer, or None for this machine and trusted proxies, which have many clients."""
        if host is None:
            return None
        address = read_ip_address(host)
        if address.is_loopback or any(address in cidr for cidr in self._proxies):
            return None
        return network_of(address)

    def admit(self, link: Link) -> bool:
        """Count a new connection, and close another one if necessary. Return whether the new one is admitted."""
        network = link.network
        if network is not None and self._counts.get(network, 0) >= self._of_one_network:
            longest = next((other for other in self._waiting if other.network == network), None)
            if not self._shed(longest, f"{network} has {self._of_one_network} connections"):
                return False
        if len(self._open) >= self._most:
            longest = next(iter(self._waiting), None)
            if not self._shed(longest, f"there are {self._most} connections"):
                return False
        self._open.add(link)
        self._counts[network] = self._counts.get(network, 0) + 1
        self.waits(link)
        return True

    def waits(self, link: Link) -> None:
        """Mark the connection as waiting for its client."""
        if link in self._open:
            self._waiting[link] = None
            self._waiting.move_to_end(link)

    def works(self, link: Link) -> None:
        """Mark the connection as working: its client waits for us."""
        self._waiting.pop(link, None)

    def leave(self, link: Link) -> None:
        """Remove an ended connection. This may be called more than once."""
        if link not in self._open:
            return
        self._open.remove(link)
        self._waiting.pop(link, None)
        self._counts[link.network] -= 1
        if not self._counts[link.network]:
            del self._counts[link.network]

    def _shed(self, link: Link | None, why: str) -> bool:
        now_s = time.monotonic()
        if now_s - self._told_at_s >= TELL_AGAIN_S:
            self._told_at_s = now_s
            log.warning("%s: each new one replaces the one that has waited longest for its client", why)
        if link is None:
            return False
        self.leave(link)
        link.cut()
        return True
