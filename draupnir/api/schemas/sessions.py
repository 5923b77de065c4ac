"""Bodies about signing in and sessions."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, ClassVar, Literal, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from draupnir.api.schemas.requests import Attributes
from draupnir.api.schemas.values import WrittenTime, write_time
from draupnir.callers import Caller, Role, Scope, Token, TokenKind

# RFC 7636: what SHA-256 makes, and what it may be made of.
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


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
    raise ValueError("must be the code from the sign-in")


def read_verifier(value: object) -> str:
    """A code verifier; raises ValueError."""
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
    """The attributes of POST /sign_ins; without a port the code is shown to be pasted."""

    code_challenge: Annotated[str, CHALLENGE]
    loopback_port: Annotated[int | None, PORT] = None


class NewSession(Attributes):
    """The attributes of POST /sessions."""

    code: Annotated[str, CODE]
    code_verifier: Annotated[str, VERIFIER]
    unrepeatable: ClassVar[frozenset[str]] = frozenset({"code", "code_verifier"})


class SignInAttributes(TypedDict):
    """Where a browser goes on, and until when."""

    url: str
    expires_at: WrittenTime


class SignInResource(TypedDict):
    """A sign-in that has begun."""

    type: Literal["sign_ins"]
    attributes: SignInAttributes


class NewSessionAttributes(TypedDict):
    """A session that was just made; its token is in no other answer."""

    token: str
    email: str
    role: Role
    expires_at: WrittenTime


class NewSessionResource(TypedDict):
    """A session that was just made."""

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
    """The resource object of a sign-in."""
    return {"type": "sign_ins", "attributes": {"url": url, "expires_at": write_time(expires_at)}}


def write_new_session(made: Token, token: str, role: Role) -> NewSessionResource:
    """The resource object of a session that was just made."""
    attributes: NewSessionAttributes = {
        "token": token,
        "email": made.owner,
        "role": role,
        "expires_at": write_time(made.expires_at),
    }
    return {"type": "sessions", "id": made.id, "attributes": attributes}


def write_caller(caller: Caller) -> SessionResource:
    """The resource object of what the caller has shown: who they are by it, and for how long."""
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
