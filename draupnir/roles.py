"""Permissions: the access that each route gives to each role, and the requests to the helper that each role may cause.

The reach of a caller through a route is NO (403, or 401 without authentication), OWN (404 for resources of others) or
ALL. A read-only token may not change anything, except that it may revoke itself.
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
# The name of the shared secret's bearer; users have their e-mail address as name.
UPLOAD = "upload"
COLUMNS = (Role.ANONYMOUS, Role.USER, Role.UPLOADER, Role.ADMIN)


class Access(NamedTuple):
    """The reach that a route gives to each role."""

    anonymous: Reach
    user: Reach
    uploader: Reach
    admin: Reach

    def of(self, role: Role) -> Reach:
        """Return the reach for one role."""
        return self[COLUMNS.index(role)]

    @property
    def is_public(self) -> bool:
        """Return whether the route needs no token."""
        return self.anonymous is not NO


PUBLIC = Access(ALL, ALL, ALL, ALL)
SHARED = Access(NO, ALL, ALL, ALL)  # resources that all users share
KEPT = Access(NO, NO, ALL, ALL)  # for uploaders and admins
OWNED = Access(NO, OWN, OWN, ALL)
PERSONAL = Access(NO, OWN, OWN, OWN)
RESERVED = Access(NO, NO, NO, ALL)

_DAEMON = frozenset({Role.DAEMON})
_KEEPERS = _DAEMON | {Role.UPLOADER, Role.ADMIN}
_PEOPLE = _KEEPERS | {Role.USER}
_ANYONE = _PEOPLE | {Role.ANONYMOUS}

# The roles that may cause a request to the helper, directly or through work that their request started. DAEMON is work
# without a caller: the reconciler, the pool.
HELPER_REQUESTS: dict[type[wire.AnyRequest], frozenset[Role]] = {
    wire.Inspect: _ANYONE,  # the health check
    wire.TakeInventory: _PEOPLE,  # the reconciler; create image and instance before its first pass
    wire.CreateUpload: _KEEPERS,  # create image
    wire.LimitUploads: _DAEMON,  # the watch over the disk
    wire.SealUpload: _KEEPERS,  # finalise, like the requests below down to publish
    wire.StartExtract: _KEEPERS,
    wire.StartFinalise: _KEEPERS,
    wire.InspectJob: _KEEPERS,
    wire.StopJobs: _KEEPERS,
    wire.PublishImage: _KEEPERS,
    wire.DiscardParts: _KEEPERS,
    wire.DestroyImage: _KEEPERS,  # destroy image
    wire.KeepErrorText: _KEEPERS,  # finalise
    wire.ReadErrorText: _KEEPERS,  # show the error of an image
    wire.ReadReport: _PEOPLE,  # show the report of an image
    wire.StartInstance: _PEOPLE,  # create instance; the trial of a finalise; the pool; after a reboot
    wire.AssignInstance: _PEOPLE,  # create instance, from the pool; restore an instance for another owner
    wire.CloseInstance: _PEOPLE,  # offboarding; the watch over the disk; restart and restore
    wire.AdmitAddresses: _PEOPLE,  # create and show instance, add and remove address
    wire.LimitInstance: _DAEMON,  # the watch over the disk
    wire.ObserveAddresses: _DAEMON,  # the reconciler
    wire.ObserveInstances: _PEOPLE,  # list and show
    wire.DestroyInstance: _PEOPLE,  # destroy instance or image; undo a creation; free a port of the pool
    wire.EmptyTrash: _PEOPLE,
}

_A = {
    Role.ANONYMOUS: "not authenticated",
    Role.USER: "a user",
    Role.UPLOADER: "the uploader",
    Role.ADMIN: "an admin",
    Role.DAEMON: "the daemon",
}

# Every task that a request starts inherits this, and so do the tasks that it starts.
acting: ContextVar[Role] = ContextVar("acting", default=Role.DAEMON)


def admit(access: Access, caller: Caller, *, reading: bool) -> Caller:
    """Return the caller with the route's reach, and set its role for all later work. Raises Forbidden.

    A read-only token may only send requests that are `reading`.
    """
    reach = access.of(caller.role)
    if reach is NO:
        allowed = " or ".join(_A[role] for role in COLUMNS if access.of(role) is not NO)
        raise Forbidden(f"{caller.name} is {_A[caller.role]}, and this requires {allowed}.")
    if caller.read_only and not reading:
        raise Forbidden("This token is read-only; use a token with full scope.")
    acting.set(caller.role)
    return dataclasses.replace(caller, reach=reach)


def role_of(email: str, admins: Collection[str]) -> Role:
    """Return the role of a user who has signed in."""
    return Role.ADMIN if email.lower() in admins else Role.USER


def role_of_secret(*, others_sign_in: bool) -> Role:
    """Return the role of the shared secret's bearer: admin as long as no users can sign in."""
    return Role.UPLOADER if others_sign_in else Role.ADMIN


def check_request(kind: type[wire.AnyRequest]) -> None:
    """Raise Forbidden if the current role may not cause this kind of request to the helper."""
    if acting.get() not in HELPER_REQUESTS[kind]:
        raise Forbidden(f"The helper's request {kind.__name__} is not allowed on behalf of {_A[acting.get()]}.")
