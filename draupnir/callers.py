"""Who sends requests: roles, users and tokens as frozen values, without HTTP and without SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Role(StrEnum):
    """As what somebody acts; roles.py says what each may do. The daemon acts by itself when nobody has asked."""

    ANONYMOUS = "anonymous"
    USER = "user"
    UPLOADER = "uploader"
    ADMIN = "admin"
    DAEMON = "daemon"


class Reach(StrEnum):
    """Whose things somebody may touch in one way or another."""

    NOTHING = "nothing"
    OWN = "own"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a name that owns instances, a role, and whose things this request reaches.

    `token` is what they have shown; None for the shared secret, and where no token is needed.
    """

    name: str
    role: Role
    reach: Reach = Reach.OWN
    token: Token | None = None

    @property
    def read_only(self) -> bool:
        """Whether what they have shown changes nothing."""
        return self.token is not None and self.token.scope is Scope.READ_ONLY

    @property
    def confined_to(self) -> str | None:
        """The one whose things are all there is for this caller; None where there are everybody's."""
        return None if self.reach is Reach.ALL else self.name


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the identity provider vouched for: `email` in lower case, and the provider's own name for the person."""

    email: str
    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class User:
    """A person who has signed in; `refresh_token` is encrypted, and replaced each time it is renewed.

    `checked_at` is when the provider last vouched for them, `left_at` when it would not any more. `rotates` tells
    whether it renews refresh tokens, None as long as that is not known; `unsettled` whether it may have renewed this
    one unheard, and `refused_s` for how long it has been refusing it then.
    """

    email: str
    issuer: str
    subject: str
    refresh_token: bytes
    created_at: datetime
    signed_in_at: datetime
    checked_at: datetime
    left_at: datetime | None
    rotates: bool | None = None
    unsettled: bool = False
    refused_s: float | None = None


class Standing(StrEnum):
    """What the identity provider says of somebody who once signed in; an outage says nothing.

    UNCLEAR is what is not known either, only that the refresh token may have been renewed, and the new one lost.
    """

    VALID = "valid"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    UNCLEAR = "unclear"


class TokenKind(StrEnum):
    """How a token came to be: by signing in, or made under a name for a program."""

    SESSION = "session"
    NAMED = "named"


class Scope(StrEnum):
    """What the bearer of a token may do of what its owner may: all of it, or only look."""

    FULL = "full"
    READ_ONLY = "read_only"


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; the token itself only its bearer has. The name of a session says nothing."""

    id: int
    owner: str
    kind: TokenKind
    name: str
    scope: Scope
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
