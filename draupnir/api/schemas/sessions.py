"""Bodies of sign-ins and sessions."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, ClassVar, Literal, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from draupnir.api.schemas.requests import Attributes
from draupnir.api.schemas.values import WrittenTime, write_time
from draupnir.callers import Caller, Role, Scope, Token, TokenKind

# RFC 7636: the syntax of code challenge and code verifier.
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


def read_challenge(value: object) -> str:
    """Parse an S256 code challenge. Raises ValueError."""
    if isinstance(value, str) and _CHALLENGE.fullmatch(value):
        return value
    raise ValueError("must be the SHA-256 of the code verifier in base64url, 43 characters")


def read_port(value: object) -> int | None:
    """Parse an unprivileged port, or null. Raises ValueError."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1024 <= value <= 65535):
        return value
    raise ValueError("must be a port from 1024 to 65535, or null if nobody listens")


def read_code(value: object) -> str:
    """Parse a one-time code, whose syntax is not checked. Raises ValueError."""
    if isinstance(value, str):
        return value
    raise ValueError("must be the code from the sign-in")


def read_verifier(value: object) -> str:
    """Parse a code verifier. Raises ValueError."""
    if isinstance(value, str) and _VERIFIER.fullmatch(value):
        return value
    raise ValueError("must be a code verifier of 43 to 128 letters, digits, dots, _, ~ and -")


CHALLENGE = BeforeValidator(
    read_challenge, json_schema_input_type=Annotated[str, Field(pattern=f"^{_CHALLENGE.pattern}$")]
)
PORT = BeforeValidator(read_port, json_schema_input_type=Annotated[int, Field(ge=1024, le=65535)] | None)
CODE = BeforeValidator(read_code, json_schema_input_type=str)
VERIFIER = BeforeValidator(
    read_verifier, json_schema_input_type=Annotated[str, Field(pattern=f"^{_VERIFIER.pattern}$")]
)


class NewSignIn(Attributes):
    """The attributes of POST /sign_ins. Without a port, a page shows the code to paste."""

    code_challenge: Annotated[str, CHALLENGE]
    loopback_port: Annotated[int | None, PORT] = None


class NewSession(Attributes):
    """The attributes of POST /sessions."""

    code: Annotated[str, CODE]
    code_verifier: Annotated[str, VERIFIER]
    unrepeatable: ClassVar[frozenset[str]] = frozenset({"code", "code_verifier"})


class SignInAttributes(TypedDict):
    """The url for a browser, and its expiry."""

    url: str
    expires_at: WrittenTime


class SignInResource(TypedDict):
    """A started sign-in."""

    type: Literal["sign_ins"]
    attributes: SignInAttributes


class NewSessionAttributes(TypedDict):
    """A new session. Only this answer contains its token."""

    token: str
    email: str
    role: Role
    expires_at: WrittenTime


class NewSessionResource(TypedDict):
    """A new session."""

    type: Literal["sessions"]
    id: int
    attributes: NewSessionAttributes


class SessionAttributes(TypedDict):
    """The current identity."""

    name: str
    role: Role
    kind: Literal[TokenKind.SESSION, TokenKind.NAMED, "shared_secret"]
    scope: Scope
    expires_at: NotRequired[Annotated[WrittenTime, Field(description="The shared secret does not expire.")]]


class SessionResource(TypedDict):
    """The current identity; the shared secret has no id."""

    type: Literal["sessions"]
    id: NotRequired[int]
    attributes: SessionAttributes


def write_sign_in(url: str, expires_at: datetime) -> SignInResource:
    """Return the resource object of a sign-in."""
    return {"type": "sign_ins", "attributes": {"url": url, "expires_at": write_time(expires_at)}}


def write_new_session(made: Token, token: str, role: Role) -> NewSessionResource:
    """Return the resource object of a new session."""
    attributes: NewSessionAttributes = {
        "token": token,
        "email": made.owner,
        "role": role,
        "expires_at": write_time(made.expires_at),
    }
    return {"type": "sessions", "id": made.id, "attributes": attributes}


def write_caller(caller: Caller) -> SessionResource:
    """Return the resource object of the caller's session or token: identity and expiry."""
    token = caller.token
    attributes: SessionAttributes = {
        "name": caller.name,
        "role": caller.role,
        "kind": "shared_secret" if token is None else token.kind,
        "scope": Scope.FULL if token is None else token.scope,
    }
    if token is None:
        return {"type": "sessions", "attributes": attributes}
    attributes["expires_at"] = write_time(token.expires_at)
    return {"type": "sessions", "id": token.id, "attributes": attributes}
