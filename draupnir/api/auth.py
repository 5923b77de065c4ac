"""Authenticates a request: by the shared secret, or by a token of this service."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable

from starlette.requests import Request

from draupnir import audit, errors, roles
from draupnir.api.limits import Limits, network_of
from draupnir.callers import Caller, Role
from draupnir.operations import tokens
from draupnir.operations.context import Context

Identify = Callable[[str], Awaitable[Caller | None]]
"""Returns the caller of a bearer token, or None."""

ANONYMOUS = Caller("-", Role.ANONYMOUS)


def known_to(context: Context, secret: bytes) -> Identify:
    """Return a function that identifies the shared secret and tokens. Raises ValueError for an empty secret."""
    if not secret:
        raise ValueError("the shared secret is empty")
    upload = Caller(roles.UPLOAD, roles.role_of_secret(others_sign_in=context.sign_in is not None))
    expected = hashlib.sha256(secret).digest()

    async def identify(token: str) -> Caller | None:
        # Headers arrive as latin-1. Digests have equal length, so the comparison does not reveal the secret's length.
        given = hashlib.sha256(token.encode("latin-1", "replace")).digest()
        return upload if hmac.compare_digest(given, expected) else await tokens.identify(context, token)

    return identify


async def caller_of(request: Request) -> Caller:
    """Return the caller of the request, and record it for the logs. Raises Unauthorized, TooManyRequests."""
    scheme, _, token = request.headers.get("authorization", "").strip().partition(" ")
    if not scheme:
        raise errors.Unauthorized("The request has no Authorization header; send `Authorization: Bearer <token>`.")
    if scheme.lower() != "bearer" or not token.strip():
        raise errors.Unauthorized("The Authorization header is malformed; send `Authorization: Bearer <token>`.")
    identify: Identify = request.app.state.identify
    limits: Limits = request.app.state.limits
    network = network_of(request.state.client_address)
    limits.begin_trying(network, token.strip())
    caller = await identify(token.strip())
    if caller is None:
        raise errors.Unauthorized("The token is unknown, revoked or expired; sign in again.")
    limits.was_right(network, token.strip())
    request.state.caller = caller
    # edge.py created the origin for this request, and logs the same object at the end.
    audit.origin.get().caller = caller.name
    return caller
