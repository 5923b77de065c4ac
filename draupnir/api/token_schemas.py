"""Bodies of signing in and of tokens: what may be asked for, and what is told of a session or token."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import BeforeValidator

from draupnir.api.schemas import Attributes, write_time
from draupnir.models import Caller, Scope, Token

DAY_S = 24 * 3600
DEFAULT_LIFETIME_S, LONGEST_LIFETIME_S = 90 * DAY_S, 366 * DAY_S

# RFC 7636: what SHA-256 makes, and what it may be made of.
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def read_challenge(value: object) -> str:
    """An S256 code challenge; raises ValueError."""
    if isinstance(value, str) and _CHALLENGE.fullmatch(value):
        return value
    raise ValueError("must be the SHA-256 of the code verifier in base64url, 43 characters")


def read_port(value: object) -> int | None:
    """A port that anybody may listen on, or null for none; raises ValueError."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1024 <= value <= 65535):
        return value
    raise ValueError("must be a port from 1024 to 65535, or null if nobody listens")


def read_code(value: object) -> str:
    """A one-time code, which is looked up and not looked at; raises ValueError."""
    if isinstance(value, str):
        return value
    raise ValueError("must be the code that came of signing in")


def read_verifier(value: object) -> str:
    """A code verifier; raises ValueError."""
    if isinstance(value, str) and _VERIFIER.fullmatch(value):
        return value
    raise ValueError("must be a code verifier of 43 to 128 letters, digits, dots, _, ~ and -")


def read_name(value: object) -> str:
    """The name of a token; raises ValueError."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise ValueError("must be 1 to 64 letters, digits, dots, _ and -")


def read_scope(value: object) -> Scope:
    """One of the scopes by name; raises ValueError."""
    if isinstance(value, str) and value in set(Scope):
        return Scope(value)
    raise ValueError(f"must be {' or '.join(repr(scope.value) for scope in Scope)}")


def read_lifetime(value: object) -> int:
    """Whole seconds, from one to a year of them; raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LONGEST_LIFETIME_S:
        return value
    raise ValueError(f"must be a number of seconds from 1 to {LONGEST_LIFETIME_S}, which is 366 days")


class NewSignIn(Attributes):
    """The attributes of POST /sign_ins; without a port the code is shown to be pasted."""

    code_challenge: Annotated[str, BeforeValidator(read_challenge)]
    loopback_port: Annotated[int | None, BeforeValidator(read_port)] = None


class NewSession(Attributes):
    """The attributes of POST /sessions."""

    code: Annotated[str, BeforeValidator(read_code)]
    code_verifier: Annotated[str, BeforeValidator(read_verifier)]
    unrepeatable: ClassVar[frozenset[str]] = frozenset({"code", "code_verifier"})


class NewToken(Attributes):
    """The attributes of POST /tokens; `expires_in` is in seconds."""

    name: Annotated[str, BeforeValidator(read_name)]
    scope: Annotated[Scope, BeforeValidator(read_scope)] = Scope.FULL
    expires_in: Annotated[int, BeforeValidator(read_lifetime)] = DEFAULT_LIFETIME_S


def write_token(token: Token, caller: Caller, secret: str | None = None) -> dict[str, object]:
    """The resource object of a session or named token; `current` is the one that the caller has shown.

    The secret is the token itself, told only to whoever has just made it.
    """
    attributes: dict[str, object] = {
        "name": token.name,
        "kind": token.kind.value,
        "scope": token.scope.value,
        "created_at": write_time(token.created_at),
        "expires_at": write_time(token.expires_at),
        "last_used_at": None if token.last_used_at is None else write_time(token.last_used_at),
        "current": caller.token is not None and caller.token.id == token.id,
    }
    if secret is not None:
        attributes["token"] = secret
    return {"type": "tokens", "id": token.id, "attributes": attributes}


def write_caller(caller: Caller) -> dict[str, object]:
    """The resource object of what the caller has shown: who they are by it, and for how long."""
    attributes: dict[str, object] = {"name": caller.name, "role": caller.role.value}
    if caller.token is None:
        attributes |= {"kind": "shared_secret", "scope": Scope.FULL.value}
        return {"type": "sessions", "attributes": attributes}
    token = caller.token
    attributes |= {"kind": token.kind.value, "scope": token.scope.value, "expires_at": write_time(token.expires_at)}
    return {"type": "sessions", "id": token.id, "attributes": attributes}
