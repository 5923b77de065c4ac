"""Who may do what: every role against every route and every request to the helper. Nothing else decides it.

Whose things a caller reaches through a route is one of NO (403, or 401 for the anonymous), OWN (others' are not
there: 404) and ALL. A read-only token may change nothing, except that it may revoke itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from contextvars import ContextVar

from draupnir.errors import Forbidden
from draupnir.models import Caller, Reach, Role
from draupnir_helper import wire

NO, OWN, ALL = Reach.NOTHING, Reach.OWN, Reach.ALL
# The name of the shared secret's bearer; people are named by their e-mail address.
UPLOAD = "upload"
COLUMNS = (Role.ANONYMOUS, Role.USER, Role.UPLOADER, Role.ADMIN)

# fmt: off
ROUTES: dict[tuple[str, str], tuple[Reach, Reach, Reach, Reach]] = {
    #                                       anonymous user uploader admin
    ("GET", "/health_check"):               (ALL,     ALL,     ALL, ALL),
    ("GET", "/images"):                     (NO,      ALL,     ALL, ALL),
    ("POST", "/images"):                    (NO,      NO,      ALL, ALL),
    ("GET", "/images/{image_id}"):          (NO,      ALL,     ALL, ALL),
    ("PATCH", "/images/{image_id}"):        (NO,      NO,      ALL, ALL),
    ("DELETE", "/images/{image_id}"):       (NO,      NO,      ALL, ALL),
    ("POST", "/images/{image_id}/done"):    (NO,      NO,      ALL, ALL),
    ("GET", "/images/{image_id}/error"):    (NO,      NO,      ALL, ALL),
    ("GET", "/instances"):                  (NO,      OWN,     OWN, ALL),
    ("POST", "/instances"):                 (NO,      OWN,     OWN, OWN),
    ("POST", "/instances/{instance_id}/restart"): (NO, OWN,    OWN, ALL),
    ("POST", "/instances/{instance_id}/restore"): (NO, NO,     NO,  ALL),
    ("GET", "/instances/{instance_id}"):    (NO,      OWN,     OWN, ALL),
    ("DELETE", "/instances/{instance_id}"): (NO,      OWN,     OWN, ALL),
    ("GET", "/instances/{instance_id}/addresses"):    (NO, OWN, OWN, ALL),
    ("POST", "/instances/{instance_id}/addresses"):   (NO, OWN, OWN, ALL),
    ("DELETE", "/instances/{instance_id}/addresses"): (NO, OWN, OWN, ALL),
    ("GET", "/events"):                     (NO,      OWN,     OWN, ALL),
    ("POST", "/sign_ins"):                  (ALL,     ALL,     ALL, ALL),
    ("GET", "/authenticate"):               (ALL,     ALL,     ALL, ALL),
    ("GET", "/oauth_callback"):             (ALL,     ALL,     ALL, ALL),
    ("POST", "/sessions"):                  (ALL,     ALL,     ALL, ALL),
    ("GET", "/sessions/current"):           (NO,      OWN,     OWN, OWN),
    ("DELETE", "/sessions/current"):        (NO,      OWN,     OWN, OWN),
    ("GET", "/tokens"):                     (NO,      OWN,     OWN, OWN),
    ("POST", "/tokens"):                    (NO,      OWN,     OWN, OWN),
    ("DELETE", "/tokens/{token_id}"):       (NO,      OWN,     OWN, OWN),
}
# fmt: on
SAFE_METHODS = frozenset({"GET"})
# The one change that a read-only token may make: revoking itself.
SIGN_OUT = ("DELETE", "/sessions/current")

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
    wire.CloseInstance: _PEOPLE,  # of somebody who has left, or wrote too much; restart and restore begin with it
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


def is_public(method: str, path: str) -> bool:
    """Whether the route is open to those who do not say who they are. Raises KeyError if the table has no such row."""
    return _reach(method, path, Role.ANONYMOUS) is not NO


def admit(method: str, path: str, caller: Caller) -> Caller:
    """The caller with the reach that the route gives it; from here on all is done in its role. Raises Forbidden."""
    reach = _reach(method, path, caller.role)
    if reach is NO:
        raise Forbidden(f"{caller.name} is {_A[caller.role]}, and this is for {_allowed(method, path)} to do.")
    if caller.read_only and method not in SAFE_METHODS and (method, path) != SIGN_OUT:
        raise Forbidden("This token may only look at things; use one that may change them.")
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


def _reach(method: str, path: str, role: Role) -> Reach:
    return ROUTES[method, path][COLUMNS.index(role)]


def _allowed(method: str, path: str) -> str:
    return " or ".join(_A[role] for role in COLUMNS if _reach(method, path, role) is not NO)
