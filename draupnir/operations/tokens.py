"""Operations on tokens: identify a caller; create and revoke sessions and named tokens.

A token is random and only its bearer has it; the metadata contain its SHA-256. Each use checks whether its owner is
still an active and trusted user, and in which role the owner acts.
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
    """Return the identity of the token, or None if it is unknown, or if its owner may no longer sign in."""
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
    """Create a session for a user who has signed in. Return it with its secret and the user's role."""
    token = _random()
    expires_at = datetime.now(UTC) + timedelta(seconds=context.settings.session_lifetime_s)
    made = await context.store.tokens.insert(
        email, TokenKind.SESSION, "session", Scope.FULL, digest_of(token), expires_at
    )
    return made, token, roles.role_of(email, context.settings.admins)


async def create(context: Context, caller: Caller, name: str, scope: Scope, lifetime: timedelta) -> tuple[Token, str]:
    """Create a named token of the caller, and return it with its secret. Raises TokenNameTaken, TooManyTokens.

    If the caller uses a named token, the new one expires no later, so that tokens cannot renew themselves.
    """
    token = _random()
    expires_at = datetime.now(UTC) + lifetime
    if caller.token is not None and caller.token.kind is TokenKind.NAMED:
        expires_at = min(expires_at, caller.token.expires_at)
    made = await context.store.tokens.insert(caller.name, TokenKind.NAMED, name, scope, digest_of(token), expires_at)
    return made, token


async def list_own(context: Context, caller: Caller) -> list[Token]:
    """Return the caller's sessions and named tokens."""
    return await context.store.tokens.list_of(caller.name)


async def revoke(context: Context, caller: Caller, token_id: int) -> None:
    """Revoke a token of the caller. Raises NotFound, also for tokens of others."""
    if not await context.store.tokens.delete(caller.name, token_id):
        raise NotFound(f"Token {token_id} not found; list yours with GET /tokens.")


async def sign_out(context: Context, caller: Caller) -> None:
    """Revoke the token that authenticates the caller. Raises NotASession."""
    if caller.token is None:
        raise NotASession(
            "The shared secret cannot be signed out; only the administrator can replace it, on the server."
            " `draupnir-client sign-out --local` removes it from your machine."
        )
    # A concurrent request may have revoked it already, which is fine.
    await context.store.tokens.delete(caller.name, caller.token.id)


def digest_of(secret: str) -> bytes:
    """Return the digest of a secret, which the metadata store instead of it."""
    return hashlib.sha256(secret.encode(errors="replace")).digest()


def _random() -> str:
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
