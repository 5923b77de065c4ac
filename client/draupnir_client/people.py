"""The API's answers about users and their tokens as small frozen values, with readers like those in models.py."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from draupnir_client.errors import BadAnswer
from draupnir_client.models import Document, integer, resource, text


@dataclass(frozen=True, slots=True)
class SignIn:
    """A started sign-in: the url for the browser, and its expiry."""

    url: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class NewSession:
    """A new session. Its expiry is the API's string."""

    token: str = field(repr=False)
    email: str
    role: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity of a token. `kind` is session, named or shared_secret, which does not expire."""

    document: Document
    name: str
    role: str
    kind: str
    scope: str
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class Token:
    """A session or named token, without its secret. Times are the API's strings."""

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
    """A new named token with its secret, which is also in `document`."""

    document: Document = field(repr=False)
    id: int
    name: str
    expires_at: str
    secret: str = field(repr=False)


def read_sign_in(value: object) -> SignIn:
    """Read a started sign-in. Raises BadAnswer if it is malformed, or if its link is not a web address."""
    _, attributes = resource(value, "sign_ins")
    url = text(attributes, "url")
    # The link becomes an argument of a program, and may be printed.
    if not re.fullmatch(r"https?://[\x21-\x7e]+", url):
        raise BadAnswer("The server's answer has no valid link to sign in with; check the url.")
    try:
        expires_at = datetime.fromisoformat(text(attributes, "expires_at"))
    except ValueError as error:
        raise BadAnswer("The server's answer has no valid expires_at; check the url.") from error
    return SignIn(url, expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=UTC))


def read_new_session(value: object) -> NewSession:
    """Read a session with its token. Raises BadAnswer if it is malformed."""
    _, attributes = resource(value, "sessions")
    return NewSession(
        token=_token(attributes),
        email=text(attributes, "email"),
        role=text(attributes, "role"),
        expires_at=text(attributes, "expires_at"),
    )


def read_caller(value: object) -> Caller:
    """Read the identity of a token. Raises BadAnswer if it is malformed."""
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
    """Read a session or named token. Raises BadAnswer if it is malformed."""
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
    """Read a named token with its secret. Raises BadAnswer if it is malformed."""
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
    # The token is saved in a file, sent in a header, and printed for a shell.
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise BadAnswer("The server's answer has no valid token; check that the url is that of a Draupnir server.")
    return token
