"""Who may do what: the kinds of access that routes have, and every role against every request to the helper.

Whose things a caller reaches through a route is one of NO (403, or 401 for the anonymous), OWN (others' are not
there: 404) and ALL. A read-only token may change nothing, except that it may revoke itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from contextvars import ContextVar
from typing import NamedTuple

from draupnir.callers import Caller, Reach, Role
from draupnir.errors import Forbidden
from draupnir_helper import wire

NO, OWN, ALL = Reach.NOTHING, Reach.OWN, Reach.ALL
# The name of the shared secret's bearer; people are named by their e-mail address.
UPLOAD = "upload"
COLUMNS = (Role.ANONYMOUS, Role.USER, Role.UPLOADER, Role.ADMIN)


class Access(NamedTuple):
    """What a route gives to callers of each role."""

    anonymous: Reach
    user: Reach
    uploader: Reach
    admin: Reach

    def of(self, role: Role) -> Reach:
        """What it gives to one role."""
        return self[COLUMNS.index(role)]

    @property
    def is_public(self) -> bool:
        """Whether the route needs no token."""
        return self.anonymous is not NO


PUBLIC = Access(ALL, ALL, ALL, ALL)
SHARED = Access(NO, ALL, ALL, ALL)  # what all users have in common
KEPT = Access(NO, NO, ALL, ALL)  # for those who keep the images
OWNED = Access(NO, OWN, OWN, ALL)
PERSONAL = Access(NO, OWN, OWN, OWN)
RESERVED = Access(NO, NO, NO, ALL)

_DAEMON = frozenset({Role.DAEMON})
_KEEPERS = _DAEMON | {Role.UPLOADER, Role.ADMIN}
_PEOPLE = _KEEPERS | {Role.USER}
_ANYONE = _PEOPLE | {Role.ANONYMOUS}

# Whose doing a request to the helper may be: of the caller whose request is being answered, or of work begun for it.
# The daemon itself is whatever nobody waits for: the reconciler, the pool.
HELPER_REQUESTS: dict[type[wire.AnyRequest], frozenset[Role]] = {
    wire.Inspect: _ANYONE,  # the health check
    wire.TakeInventory: _PEOPLE,  # the reconciler; create image and instance before its first pass
    wire.CreateUpload: _KEEPERS,  # create image
    wire.LimitUploads: _DAEMON,  # the watch over the disk
    wire.SealUpload: _KEEPERS,  # finalise, and so on down to publish
    wire.StartExtract: _KEEPERS,
    wire.StartFinalise: _KEEPERS,
    wire.InspectJob: _KEEPERS,
    wire.StopJobs: _KEEPERS,
    wire.PublishImage: _KEEPERS,
    wire.DiscardParts: _KEEPERS,
    wire.DestroyImage: _KEEPERS,  # destroy image
    wire.KeepErrorText: _KEEPERS,  # finalise
    wire.ReadErrorText: _KEEPERS,  # show the error of an image
    wire.StartInstance: _PEOPLE,  # create instance; the trial of a finalise; the pool; after a reboot
    wire.AssignInstance: _PEOPLE,  # create instance, from the pool; restore it for somebody else
    wire.CloseInstance: _PEOPLE,  # of a revoked user, or that wrote too much; restart and restore begin with it
    wire.AdmitAddresses: _PEOPLE,  # create and show instance, add and remove address
    wire.LimitInstance: _DAEMON,  # the watch over the disk
    wire.ObserveAddresses: _DAEMON,  # the reconciler
    wire.ObserveInstances: _PEOPLE,  # list and show
    wire.DestroyInstance: _PEOPLE,  # destroy instance, or image; a creation undone; the pool giving up a port
    wire.EmptyTrash: _PEOPLE,
}

_A = {
    Role.ANONYMOUS: "nobody known",
    Role.USER: "a user",
    Role.UPLOADER: "the uploader",
    Role.ADMIN: "an admin",
    Role.DAEMON: "the daemon",
}

# Inherited by every task that a request starts, and by whatever those start.
acting: ContextVar[Role] = ContextVar("acting", default=Role.DAEMON)


def admit(access: Access, caller: Caller, *, reading: bool) -> Caller:
    """The caller with the reach that the route gives it; from here on all is done in its role. Raises Forbidden.

    A read-only token may do what is `reading`, and nothing else.
    """
    reach = access.of(caller.role)
    if reach is NO:
        allowed = " or ".join(_A[role] for role in COLUMNS if access.of(role) is not NO)
        raise Forbidden(f"{caller.name} is {_A[caller.role]}, and this is for {allowed} to do.")
    if caller.read_only and not reading:
        raise Forbidden("This token is read-only; use a token with full scope.")
    acting.set(caller.role)
    return dataclasses.replace(caller, reach=reach)


def role_of(email: str, admins: Collection[str]) -> Role:
    """As what a person who has signed in acts."""
    return Role.ADMIN if email.lower() in admins else Role.USER


def role_of_secret(*, others_sign_in: bool) -> Role:
    """As what the bearer of the shared secret acts: as long as nobody else can come in, they are all there is."""
    return Role.UPLOADER if others_sign_in else Role.ADMIN


def check_request(kind: type[wire.AnyRequest]) -> None:
    """Raises Forbidden if in the role now acting no request of that kind may reach the helper."""
    if acting.get() not in HELPER_REQUESTS[kind]:
        raise Forbidden(f"The helper is not asked {kind.__name__} on behalf of {_A[acting.get()]}.")
