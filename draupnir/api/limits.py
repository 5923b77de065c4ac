"""Limits the rate of sign-ins and invalid tokens of each client network; in memory, with a bounded size.

A network is an IPv4 address or an IPv6 /64, the smallest that a provider assigns to one customer. A token that was
recently valid from the same network is never limited. So a guessing client behind the same NAT cannot lock out others.
This does not help to guess, since only valid tokens are remembered.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, IPv6Network

from starlette.requests import Request
from starlette.responses import Response

from draupnir.addresses import Address, Cidr
from draupnir.callers import Caller
from draupnir.errors import TooManyRequests

MAX_REMEMBERED = 4096
V6_PREFIX = 64
# Random tokens cannot be guessed at any rate; this limit bounds the load of attempts, and makes them visible.
WRONG_TOKENS_AT_ONCE, WRONG_TOKEN_INTERVAL_S = 100, 3.0
# A device flow polls every five seconds, for each user who signs in behind one NAT.
SIGN_INS_AT_ONCE, SIGN_IN_INTERVAL_S = 60, 1.0
# These limit lines for requests that change nothing. journald drops lines of a service that logs too much.
LINES_AT_ONCE, LINE_INTERVAL_S = 1000, 0.1
TELL_AGAIN_S = 60.0

log = logging.getLogger(__name__)

ClientNetwork = Address | Cidr | None
"""The unit of counting. None stands for all requests without a known address."""

Handler = Callable[[Request, Caller], Awaitable[Response]]


def network_of(address: Address | None) -> ClientNetwork:
    """Return the network of the address."""
    return IPv6Network((address, V6_PREFIX), strict=False) if isinstance(address, IPv6Address) else address


class Limit:
    """A token bucket for each network: `at_once` tries, and another one each interval."""

    def __init__(self, at_once: int, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._tolerance_s = (at_once - 1) * interval_s
        self._interval_s = interval_s
        self._clock = clock
        # The bucket of each network is full again at this time.
        self._clear_at: OrderedDict[ClientNetwork, float] = OrderedDict()

    def take(self, network: ClientNetwork) -> None:
        """Count a try. Raises TooManyRequests if the bucket is empty; a refused try does not count."""
        now = self._clock()
        clear_at = max(self._clear_at.get(network, now), now)
        wait_s = clear_at - now - self._tolerance_s
        if wait_s > 0:
            raise TooManyRequests(math.ceil(wait_s))
        self._clear_at[network] = clear_at + self._interval_s
        self._clear_at.move_to_end(network)
        # A client with many addresses can reset its count like this, but it could also use each address once.
        if len(self._clear_at) > MAX_REMEMBERED:
            self._clear_at.popitem(last=False)

    def give_back(self, network: ClientNetwork) -> None:
        """Uncount a try."""
        if network in self._clear_at:
            self._clear_at[network] -= self._interval_s


class Lines:
    """Limits log lines for requests that change nothing; logs a warning when it drops lines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = Limit(LINES_AT_ONCE, LINE_INTERVAL_S, clock)
        self._clock = clock
        self._told_at_s = -math.inf

    def admit(self, network: ClientNetwork) -> bool:
        """Return whether to log another line for the network."""
        try:
            self._limit.take(network)
        except TooManyRequests:
            if self._clock() - self._told_at_s >= TELL_AGAIN_S:
                self._told_at_s = self._clock()
                log.warning("%s sends too many requests; requests that change nothing are not logged", network)
            return False
        return True


class Limits:
    """The limits of one daemon."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.sign_ins = Limit(SIGN_INS_AT_ONCE, SIGN_IN_INTERVAL_S, clock)
        self._wrong_tokens = Limit(WRONG_TOKENS_AT_ONCE, WRONG_TOKEN_INTERVAL_S, clock)
        self._right: OrderedDict[tuple[ClientNetwork, bytes], None] = OrderedDict()
        self._key = secrets.token_bytes(32)

    def begin_trying(self, network: ClientNetwork, token: str) -> None:
        """Call this before a token is checked. The token counts as invalid until `was_right`.

        Raises TooManyRequests.
        """
        if self._mark(network, token) not in self._right:
            self._wrong_tokens.take(network)

    def was_right(self, network: ClientNetwork, token: str) -> None:
        """Call this after a token was valid."""
        mark = self._mark(network, token)
        if mark not in self._right:
            self._wrong_tokens.give_back(network)
            self._right[mark] = None
        self._right.move_to_end(mark)
        if len(self._right) > MAX_REMEMBERED:
            self._right.popitem(last=False)

    def _mark(self, network: ClientNetwork, token: str) -> tuple[ClientNetwork, bytes]:
        return network, hmac.digest(self._key, token.encode("latin-1", "replace"), hashlib.sha256)


def limited(answer: Handler) -> Handler:
    """Wrap the handler of a sign-in route with a rate limit for each network.

    Each try is in the audit log, even a GET. The handler may set `request.state.caller`.
    """

    async def answer_within_limit(request: Request, caller: Caller) -> Response:
        limits: Limits = request.app.state.limits
        request.state.audited = True
        limits.sign_ins.take(network_of(request.state.client_address))
        return await answer(request, caller)

    return answer_within_limit
