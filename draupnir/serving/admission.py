"""How many connections of the API are open, of whom, and which of them goes when there are too many."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from draupnir.addresses import Cidr, read_ip_address
from draupnir.api.limits import TELL_AGAIN_S, ClientNetwork, Lines, network_of

log = logging.getLogger(__name__)

# One over TLS comes to a third of a megabyte of memory; MemoryMax= and LimitNOFILE= have room for these.
MAX_CONNECTIONS = 1000
MAX_OF_ONE_NETWORK = 256


class Link(Protocol):
    """One of the open connections, as far as it matters to the others."""

    network: ClientNetwork

    def cut(self) -> None:
        """Ends it at once."""


class Connections:
    """Every connection from its acceptance to its end.

    Above the limit, the connection is closed that has waited longest for its client. A network with many connections
    loses its own, and keeps nobody out.
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
        """With whom a peer is counted; None for those behind whom there are many: this machine, and trusted proxies."""
        if host is None:
            return None
        address = read_ip_address(host)
        if address.is_loopback or any(address in cidr for cidr in self._proxies):
            return None
        return network_of(address)

    def admit(self, link: Link) -> bool:
        """Counts it in, if there is room for it or can be made."""
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
        """From now on it waits for its client."""
        if link in self._open:
            self._waiting[link] = None
            self._waiting.move_to_end(link)

    def works(self, link: Link) -> None:
        """From now on its client waits for us."""
        self._waiting.pop(link, None)

    def leave(self, link: Link) -> None:
        """It has ended; may be told more than once."""
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
