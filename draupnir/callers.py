"""The callers of requests: roles, users and tokens as frozen values, without HTTP and without SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Role(StrEnum):
    """The role of a caller. roles.py defines the permissions. DAEMON is for work without a caller."""

    ANONYMOUS = "anonymous"
    USER = "user"
    UPLOADER = "uploader"
    ADMIN = "admin"
    DAEMON = "daemon"


class Reach(StrEnum):
    """The resources that an access reaches: none, the caller's own, or those of all users."""

    NOTHING = "nothing"
    OWN = "own"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request: a name that owns instances, a role, and the reach of this request.

    `token` is the token that authenticated the caller. It is None for the shared secret, and if no token is needed.
    """

    name: str
    role: Role
    reach: Reach = Reach.OWN
    token: Token | None = None

    @property
    def read_only(self) -> bool:
        """Return whether the token is read-only."""
        return self.token is not None and self.token.scope is Scope.READ_ONLY

    @property
    def confined_to(self) -> str | None:
        """Return the only owner whose resources this caller can access, or None for those of all users."""
        return None if self.reach is Reach.ALL else self.name


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity that the provider confirmed: `email` in lower case, issuer and subject."""

    email: str
    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class User:
    """A user who has signed in; `refresh_token` is encrypted, and replaced after each rotation.

    `checked_at` is the provider's last confirmation, and `left_at` the time of the revocation. `rotates` is true if the
    provider rotates refresh tokens, and None if that is unknown. `unsettled` is true if the answer with a new token may
    be lost. `refused_s` counts the seconds for which the provider has refused the token after such a loss.
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
    """The identity provider's answer about a user. It is UNKNOWN after an outage.

    UNCLEAR is unknown, too: the provider may have rotated the refresh token, and the new token was lost.
    """

    VALID = "valid"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    UNCLEAR = "unclear"


class TokenKind(StrEnum):
    """The kind of a token: a session from a sign-in, or a named token for a program."""

    SESSION = "session"
    NAMED = "named"


class Scope(StrEnum):
    """The scope of a token: all permissions of its owner, or only reading."""

    FULL = "full"
    READ_ONLY = "read_only"


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret, which only its bearer has. The name of a session has no meaning."""

    id: int
    owner: str
    kind: TokenKind
    name: str
    scope: Scope
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
