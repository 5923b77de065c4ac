"""What the API answers about people and their tokens, as small frozen values; read as models.py reads."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from draupnir_client.errors import BadAnswer
from draupnir_client.models import Document, integer, resource, text


@dataclass(frozen=True, slots=True)
class SignIn:
    """A sign-in that has begun: where to send the browser, and until when."""

    url: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session that was just given; its end is as the API wrote it."""

    token: str = field(repr=False)
    email: str
    role: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a token stands for; `kind` is session, named or shared_secret, the last of which has no end."""

    document: Document
    name: str
    role: str
    kind: str
    scope: str
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class Token:
    """A session or named token, which is not the token itself; times are as the API wrote them."""

    document: Document
    id: int
    name: str
    kind: str
    scope: str
    created_at: str
    expires_at: str
    last_used_at: str | None
    current: bool


@dataclass(frozen=True, slots=True)
class NewToken:
    """A named token that was just made, with the token itself, in `document` too."""

    document: Document = field(repr=False)
    id: int
    name: str
    expires_at: str
    secret: str = field(repr=False)


def read_sign_in(value: object) -> SignIn:
    """Read what begins a sign-in; raise BadAnswer if it is none, or if its link is not for a browser."""
    _, attributes = resource(value, "sign_ins")
    url = text(attributes, "url")
    # It is handed to a program as an argument, and may be printed.
    if not re.fullmatch(r"https?://[\x21-\x7e]+", url):
        raise BadAnswer("The server's answer has no proper link to sign in with; check the url.")
    try:
        expires_at = datetime.fromisoformat(text(attributes, "expires_at"))
    except ValueError as error:
        raise BadAnswer("The server's answer has no proper expires_at; check the url.") from error
    return SignIn(url, expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=UTC))


def read_new_session(value: object) -> NewSession:
    """Read a session with its token; raise BadAnswer if it is none."""
    _, attributes = resource(value, "sessions")
    return NewSession(
        token=_token(attributes),
        email=text(attributes, "email"),
        role=text(attributes, "role"),
        expires_at=text(attributes, "expires_at"),
    )


def read_caller(value: object) -> Caller:
    """Read whom a token stands for; raise BadAnswer if it is not said."""
    document, attributes = resource(value, "sessions")
    return Caller(
        document=document,
        name=text(attributes, "name"),
        role=text(attributes, "role"),
        kind=text(attributes, "kind"),
        scope=text(attributes, "scope"),
        expires_at=text(attributes, "expires_at") or None,
    )


def read_token(value: object) -> Token:
    """Read a session or named token; raise BadAnswer if it is none."""
    document, attributes = resource(value, "tokens")
    return Token(
        document=document,
        id=integer(document.get("id"), "id"),
        name=text(attributes, "name"),
        kind=text(attributes, "kind"),
        scope=text(attributes, "scope"),
        created_at=text(attributes, "created_at"),
        expires_at=text(attributes, "expires_at"),
        last_used_at=text(attributes, "last_used_at") or None,
        current=attributes.get("current") is True,
    )


def read_new_token(value: object) -> NewToken:
    """Read a named token with the token itself; raise BadAnswer if it is none."""
    document, attributes = resource(value, "tokens")
    return NewToken(
        document=document,
        id=integer(document.get("id"), "id"),
        name=text(attributes, "name"),
        expires_at=text(attributes, "expires_at"),
        secret=_token(attributes),
    )


def _token(attributes: Document) -> str:
    token = text(attributes, "token")
    # It is kept in a file, goes into a header, and is printed where a shell reads it.
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise BadAnswer("The server's answer has no proper token; check that the url is that of a Draupnir server.")
    return token
