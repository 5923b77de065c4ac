"""From credentials to caller: today the shared secret, tomorrow users of an identity provider."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable

from starlette.requests import Request

from draupnir import errors
from draupnir.api.limits import Limits, together_with
from draupnir.models import Caller, Role

Identify = Callable[[str], Awaitable[Caller | None]]
"""From a bearer token to whom it was given, or None: the seam where real users come in."""

ANONYMOUS = Caller("-", Role.ANONYMOUS)


def shared_secret(secret: bytes, role: Role) -> Identify:
    """Knows one token, the shared secret, whose bearer is `upload`; raises ValueError if it is empty."""
    if not secret:
        raise ValueError("the shared secret is empty")
    upload = Caller("upload", role)
    expected = hashlib.sha256(secret).digest()

    async def identify(token: str) -> Caller | None:
        # Headers arrive as latin-1, and digests of equal length tell nothing of the secret's length.
        given = hashlib.sha256(token.encode("latin-1", "replace")).digest()
        return upload if hmac.compare_digest(given, expected) else None

    return identify


async def caller_of(request: Request) -> Caller:
    """Whoever sends the request; raises Unauthorized, TooManyRequests. Leaves the caller for the logs."""
    scheme, _, token = request.headers.get("authorization", "").strip().partition(" ")
    if not scheme:
        raise errors.Unauthorized("The request has no Authorization header; send `Authorization: Bearer <token>`.")
    if scheme.lower() != "bearer" or not token.strip():
        raise errors.Unauthorized("The Authorization header is not understood; send `Authorization: Bearer <token>`.")
    identify: Identify = request.app.state.identify
    limits: Limits = request.app.state.limits
    source = together_with(request.state.source)
    limits.begin_trying(source, token.strip())
    caller = await identify(token.strip())
    if caller is None:
        raise errors.Unauthorized("The token is not one that is known here; check it and send the request again.")
    limits.was_right(source, token.strip())
    request.state.caller = caller
    return caller
