"""Bodies of tokens."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from draupnir.api.schemas.requests import Attributes
from draupnir.api.schemas.values import WrittenTime, write_time
from draupnir.callers import Caller, Scope, Token, TokenKind

DAY_S = 24 * 3600
DEFAULT_LIFETIME_S, LONGEST_LIFETIME_S = 90 * DAY_S, 366 * DAY_S

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def read_name(value: object) -> str:
    """Parse the name of a token. Raises ValueError."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise ValueError("must be 1 to 64 letters, digits, dots, _ and -")


def read_scope(value: object) -> Scope:
    """Parse the name of a scope. Raises ValueError."""
    if isinstance(value, str) and value in set(Scope):
        return Scope(value)
    raise ValueError(f"must be {' or '.join(repr(scope.value) for scope in Scope)}")


def read_lifetime(value: object) -> int:
    """Parse whole seconds, from one to a year. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LONGEST_LIFETIME_S:
        return value
    raise ValueError(f"must be a number of seconds from 1 to {LONGEST_LIFETIME_S}, which is 366 days")


NAME = BeforeValidator(read_name, json_schema_input_type=Annotated[str, Field(pattern=f"^{_NAME.pattern}$")])
SCOPE = BeforeValidator(read_scope, json_schema_input_type=Scope)
LIFETIME = BeforeValidator(read_lifetime, json_schema_input_type=Annotated[int, Field(ge=1, le=LONGEST_LIFETIME_S)])


class NewToken(Attributes):
    """The attributes of POST /tokens; `expires_in` is in seconds."""

    name: Annotated[str, NAME]
    scope: Annotated[Scope, SCOPE] = Scope.FULL
    expires_in: Annotated[int, LIFETIME] = DEFAULT_LIFETIME_S


class TokenAttributes(TypedDict):
    """The attributes of a session or a token."""

    name: str
    kind: TokenKind
    scope: Scope
    created_at: WrittenTime
    expires_at: WrittenTime
    last_used_at: WrittenTime | None
    current: Annotated[bool, Field(description="Whether the request carried it.")]
    token: NotRequired[Annotated[str, Field(description="The secret; only in the answer that made it.")]]


class TokenResource(TypedDict):
    """A session or a token."""

    type: Literal["tokens"]
    id: int
    attributes: TokenAttributes


def write_token(token: Token, caller: Caller, secret: str | None = None) -> TokenResource:
    """Return the resource object of a session or named token; `current` marks the one that the caller uses.

    The secret is the token itself, returned only when it is created.
    """
    attributes: TokenAttributes = {
        "name": token.name,
        "kind": token.kind,
        "scope": token.scope,
        "created_at": write_time(token.created_at),
        "expires_at": write_time(token.expires_at),
        "last_used_at": None if token.last_used_at is None else write_time(token.last_used_at),
        "current": caller.token is not None and caller.token.id == token.id,
    }
    if secret is not None:
        attributes["token"] = secret
    return {"type": "tokens", "id": token.id, "attributes": attributes}
