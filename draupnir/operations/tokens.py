"""The stories of tokens: whom one stands for, and how sessions and named tokens are made and revoked.

A token is random and is kept by its bearer alone; the metadata know its SHA-256. Whom it stands for is decided each
time that it is shown: whether its owner is still there and still trusted, and in which role they act.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime, timedelta

from draupnir import roles
from draupnir.callers import Caller, Role, Scope, Token, TokenKind
from draupnir.errors import NotASession, NotFound
from draupnir.operations.context import Context

PREFIX = "dru_"
_RANDOM_BYTES = 32
_TOKEN = re.compile(r"dru_[A-Za-z0-9_-]{43}")


async def identify(context: Context, token: str) -> Caller | None:
    """Whom the token stands for; None if it was never given out, or to somebody who may not come in any more."""
    if not _TOKEN.fullmatch(token):
        return None
    found = await context.store.tokens.use(digest_of(token))
    role = None if found is None else _role_of(context, found.owner)
    return None if found is None or role is None else Caller(found.owner, role, token=found)


def _role_of(context: Context, owner: str) -> Role | None:
    others_sign_in = context.sign_in is not None
    if owner == roles.UPLOAD:
        return roles.role_of_secret(others_sign_in=others_sign_in)
    if not others_sign_in or not context.settings.trusts(owner):
        return None
    return roles.role_of(owner, context.settings.admins)


async def start_session(context: Context, email: str) -> tuple[Token, str, Role]:
    """A session for somebody who has signed in: what is known of it, the token, and their role."""
    token = _random()
    expires_at = datetime.now(UTC) + timedelta(seconds=context.settings.session_lifetime_s)
    made = await context.store.tokens.insert(
        email, TokenKind.SESSION, "session", Scope.FULL, digest_of(token), expires_at
    )
    return made, token, roles.role_of(email, context.settings.admins)


async def create(context: Context, caller: Caller, name: str, scope: Scope, lifetime: timedelta) -> tuple[Token, str]:
    """A named token of the caller's, and the token itself. Raises TokenNameTaken, TooManyTokens.

    One that is made with a named token dies no later than that, or it would have no end.
    """
    token = _random()
    expires_at = datetime.now(UTC) + lifetime
    if caller.token is not None and caller.token.kind is TokenKind.NAMED:
        expires_at = min(expires_at, caller.token.expires_at)
    made = await context.store.tokens.insert(caller.name, TokenKind.NAMED, name, scope, digest_of(token), expires_at)
    return made, token


async def list_own(context: Context, caller: Caller) -> list[Token]:
    """The caller's sessions and named tokens."""
    return await context.store.tokens.list_of(caller.name)


async def revoke(context: Context, caller: Caller, token_id: int) -> None:
    """Revoke one of the caller's. Raises NotFound, also for others'."""
    if not await context.store.tokens.delete(caller.name, token_id):
        raise NotFound(f"Token {token_id} not found; list yours with GET /tokens.")


async def sign_out(context: Context, caller: Caller) -> None:
    """Revoke the very token that the caller has shown. Raises NotASession."""
    if caller.token is None:
        raise NotASession(
            "The shared secret cannot be signed out; the administrator replaces it on the server. On your"
            " machine you only have to forget it."
        )
    # Somebody may have been quicker, and then it is done.
    await context.store.tokens.delete(caller.name, caller.token.id)


def digest_of(secret: str) -> bytes:
    """What the metadata keep of a secret that was made here."""
    return hashlib.sha256(secret.encode(errors="replace")).digest()


def _random() -> str:
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
