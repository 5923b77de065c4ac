"""Every URL of the service: one entry for each method of a path."""

from __future__ import annotations

import json
from functools import cache

from starlette.requests import Request
from starlette.responses import Response

from draupnir import errors
from draupnir.api import addresses, events, health, images, instances, openapi, sessions, sign_ins, tokens
from draupnir.api.endpoints import PAGE, Body, Endpoint, Errors, Parameter, route_all
from draupnir.api.limits import limited
from draupnir.api.pages import for_people
from draupnir.api.schemas.addresses import AddressResource, NewAddress
from draupnir.api.schemas.answers import Health, Many, One, Unhealthy
from draupnir.api.schemas.events import EventResource
from draupnir.api.schemas.images import ImageChange, ImageErrorResource, ImageResource, NewImage
from draupnir.api.schemas.instances import InstanceResource, NewInstance, Restart, Restoration
from draupnir.api.schemas.sessions import NewSession, NewSessionResource, NewSignIn, SessionResource, SignInResource
from draupnir.api.schemas.tokens import NewToken, TokenResource
from draupnir.callers import Caller
from draupnir.helper import PortInUse, UnitFailed
from draupnir.roles import KEPT, OWNED, PERSONAL, PUBLIC, RESERVED, SHARED

# Operations on the disk fail if the helper does not answer, or if the disk is not mounted.
HELPER: Errors = (errors.HelperUnavailable, errors.StorageMissing)
# Operations that start Postgres also fail for a port in use, a failed unit, or a missing encryption key.
START: Errors = (*HELPER, UnitFailed, PortInUse, errors.PostgresMissing, errors.EncryptionKeyMissing)
ALLOWLIST: Errors = (errors.AllowListsOff, errors.FilterMissing)
SIGN_IN: Errors = (errors.SignInNotConfigured, errors.EncryptionKeyMissing, errors.TooManyRequests)


async def show_document(request: Request, caller: Caller) -> Response:
    """GET /openapi.json; constant for a version of the service"""
    return Response(_document(), media_type="application/json", headers={"Cache-Control": "public, max-age=3600"})


@cache
def _document() -> bytes:
    return json.dumps(openapi.describe(ENDPOINTS)).encode()


FLAG = {"type": "boolean", "default": False}
EVERYBODYS = Parameter("all", FLAG, "true")
SCRIPT = "\\c my_db\nDELETE FROM secret_tokens;"

ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/health_check",
        access=PUBLIC,
        handler=health.check,
        does='Reports metadata, helper and disk. `"disk": "low"` warns before the disk is full.',
        answers={200: Health, 503: Unhealthy},
    ),
    Endpoint(
        method="GET",
        path="/openapi.json",
        access=PUBLIC,
        handler=show_document,
        does="Returns a description of this API in OpenAPI 3.1, with every error code.",
        answers={200: dict[str, object]},
    ),
    Endpoint(
        method="GET",
        path="/images",
        access=SHARED,
        handler=images.list_all,
        does='Lists images. Scripts are cut at 8,192 characters (`"anonymisation_script_truncated": true`).',
        answers={200: Many[ImageResource]},
    ),
    Endpoint(
        method="POST",
        path="/images",
        access=KEPT,
        handler=images.create,
        does="Creates an image.",
        body=Body("images", NewImage, {"backed_up_at": "2017-05-01T12:00:00Z", "anonymisation_script": SCRIPT}),
        answers={201: One[ImageResource]},
        errors=(*HELPER, errors.NoFreeId),
    ),
    Endpoint(
        method="GET",
        path="/images/{image_id}",
        access=SHARED,
        handler=images.show,
        does="Returns an image with its whole script, `status`, `progress`, `error`, `size_bytes`, "
        "`tables_written_by_triggers`.",
        answers={200: One[ImageResource]},
    ),
    Endpoint(
        method="PATCH",
        path="/images/{image_id}",
        access=KEPT,
        handler=images.update,
        does="Corrects the script or the time until the image is ready.",
        body=Body("images", ImageChange, {"anonymisation_script": SCRIPT}, has_id=True),
        answers={200: One[ImageResource]},
        errors=(errors.WrongState,),
    ),
    Endpoint(
        method="DELETE",
        path="/images/{image_id}",
        access=KEPT,
        handler=images.destroy,
        does="Destroys an image; with `cascade` its instances too.",
        parameters=(Parameter("cascade", FLAG, "true"),),
        answers={204: None},
        errors=(*HELPER, UnitFailed, errors.ImageHasInstances, errors.WrongState),
    ),
    Endpoint(
        method="POST",
        path="/images/{image_id}/done",
        access=KEPT,
        handler=images.finalise,
        does="Finalises an image and waits for the end. With the header, returns 202 at once.",
        parameters=(Parameter("Prefer", {"type": "string"}, "respond-async", place="header"),),
        answers={200: One[ImageResource], 202: One[ImageResource]},
        errors=(*START, errors.ImageFailed, errors.NothingUploaded, errors.WrongState),
    ),
    Endpoint(
        method="GET",
        path="/images/{image_id}/error",
        access=KEPT,
        handler=images.show_error,
        does="Returns the whole message of a failure in `text`. It may quote raw rows; for uploaders and admins only.",
        answers={200: One[ImageErrorResource]},
        errors=HELPER,
    ),
    Endpoint(
        method="GET",
        path="/instances",
        access=OWNED,
        handler=instances.list_some,
        does="Lists your instances, or those of all users.",
        parameters=(EVERYBODYS,),
        answers={200: Many[InstanceResource]},
        errors=HELPER,
    ),
    Endpoint(
        method="POST",
        path="/instances",
        access=PERSONAL,
        handler=instances.create,
        does="Creates an instance, with `port`, `hostname`, `credentials`.",
        body=Body("instances", NewInstance, {"image_id": 1}),
        answers={201: One[InstanceResource]},
        errors=(
            *START,
            *(errors.NotFound, errors.ImageNotReady, errors.DirectRefused, errors.CeilingTooHigh),
            *(errors.NoFreePort, errors.NoFreeId, errors.TooManyInstances, errors.WrongState),
            *(*ALLOWLIST, errors.TooManyAddresses),
        ),
    ),
    Endpoint(
        method="GET",
        path="/instances/{instance_id}",
        access=OWNED,
        handler=instances.show,
        does="Returns an instance: `status`, `written_bytes`, `max_bytes`; for its owner also `credentials`.",
        answers={200: One[InstanceResource]},
        errors=(*HELPER, *ALLOWLIST, errors.TooManyAddresses, errors.EncryptionKeyMissing),
    ),
    Endpoint(
        method="DELETE",
        path="/instances/{instance_id}",
        access=OWNED,
        handler=instances.destroy,
        does="Destroys an instance.",
        answers={204: None},
        errors=(*HELPER, UnitFailed),
    ),
    Endpoint(
        method="POST",
        path="/instances/{instance_id}/restart",
        access=OWNED,
        handler=instances.restart,
        does="Restarts Postgres, or opens a stopped instance.",
        body=Body("instances", Restart, {}, required=False, has_id=True),
        answers={200: One[InstanceResource]},
        errors=(*START, errors.FilterMissing, errors.WrongState),
    ),
    Endpoint(
        method="POST",
        path="/instances/{instance_id}/restore",
        access=RESERVED,
        handler=instances.restore,
        does="Opens a closed instance for its owner or for another one.",
        body=Body("instances", Restoration, {"owner": "ann@example.com"}, required=False, has_id=True),
        answers={200: One[InstanceResource]},
        errors=(*START, errors.FilterMissing, errors.OwnerUnknown, errors.WrongState),
    ),
    Endpoint(
        method="GET",
        path="/instances/{instance_id}/addresses",
        access=OWNED,
        handler=addresses.list_all,
        does="Returns the allowlist of the port, where the server has `enable_ip_whitelisting`.",
        answers={200: Many[AddressResource]},
        errors=ALLOWLIST,
    ),
    Endpoint(
        method="POST",
        path="/instances/{instance_id}/addresses",
        access=OWNED,
        handler=addresses.create,
        does="Adds an address or network for so many seconds.",
        body=Body("addresses", NewAddress, {"address": "192.0.2.0/24", "expires_in": 28800}),
        answers={201: One[AddressResource]},
        errors=(*HELPER, *ALLOWLIST, errors.TooManyAddresses),
    ),
    Endpoint(
        method="DELETE",
        path="/instances/{instance_id}/addresses",
        access=OWNED,
        handler=addresses.destroy,
        does="Removes an address or network, and cuts its connections.",
        parameters=(Parameter("address", {"type": "string"}, "192.0.2.0/24", required=True),),
        answers={204: None},
        errors=(*HELPER, *ALLOWLIST),
    ),
    Endpoint(
        method="GET",
        path="/events",
        access=OWNED,
        handler=events.list_some,
        does="Returns the last hundred events of your instances and your actions, or the first hundred after event 17.",
        parameters=(
            EVERYBODYS,
            Parameter("after", {"type": "integer", "minimum": 0, "maximum": events.MAX_EVENT_ID}, "17"),
        ),
        answers={200: Many[EventResource]},
    ),
    Endpoint(
        method="GET",
        path="/sessions/current",
        access=PERSONAL,
        handler=sessions.show,
        does="Returns the current identity: `name`, `role`, `kind`, `scope`, `expires_at`.",
        answers={200: One[SessionResource]},
    ),
    Endpoint(
        method="POST",
        path="/sessions",
        access=PUBLIC,
        handler=limited(sessions.create),
        does="Exchanges a code for a session. A code is valid for a minute and once (PKCE, RFC 7636, S256).",
        body=Body("sessions", NewSession, {"code": "…", "code_verifier": "…"}),
        answers={201: One[NewSessionResource]},
        errors=(*SIGN_IN, errors.SignInRefused),
    ),
    Endpoint(
        method="DELETE",
        path="/sessions/current",
        access=PERSONAL,
        handler=sessions.destroy,
        does="Signs out: revokes the token of the request, also a read-only one. The shared secret cannot be revoked.",
        answers={204: None},
        errors=(errors.NotASession,),
        for_read_only=True,
    ),
    Endpoint(
        method="POST",
        path="/sign_ins",
        access=PUBLIC,
        handler=limited(sign_ins.create),
        does="Returns a `url` for a browser, valid for ten minutes and once.",
        body=Body("sign_ins", NewSignIn, {"code_challenge": "…", "loopback_port": 49152}),
        answers={201: One[SignInResource]},
        errors=SIGN_IN,
    ),
    Endpoint(
        method="GET",
        path="/authenticate",
        access=PUBLIC,
        handler=for_people(limited(sign_ins.authenticate)),
        does="Redirects to the identity provider; for browsers.",
        parameters=(Parameter("sign_in", {"type": "string"}, "…"),),
        answers={302: None},
        for_people=True,
        errors=(*SIGN_IN, errors.SignInGone, errors.ProviderUnavailable),
    ),
    Endpoint(
        method="GET",
        path="/oauth_callback",
        access=PUBLIC,
        handler=for_people(limited(sign_ins.come_back)),
        does="Redirects to `http://127.0.0.1:PORT/?code=…` or `?error=…`. Without a port, shows the code.",
        parameters=tuple(Parameter(name, {"type": "string"}, "…") for name in ("state", "code", "error", "iss")),
        answers={200: PAGE, 302: None},
        for_people=True,
        errors=(*SIGN_IN, errors.SignInGone, errors.SignInRefused, errors.ProviderUnavailable),
    ),
    Endpoint(
        method="GET",
        path="/tokens",
        access=PERSONAL,
        handler=tokens.list_own,
        does="Lists your sessions and tokens with `created_at`, `expires_at`, `last_used_at`.",
        answers={200: Many[TokenResource]},
    ),
    Endpoint(
        method="POST",
        path="/tokens",
        access=PERSONAL,
        handler=tokens.create,
        does="Creates a named token and returns it once in `token`.",
        body=Body("tokens", NewToken, {"name": "ci", "scope": "read_only", "expires_in": 2592000}),
        answers={201: One[TokenResource]},
        errors=(errors.TokenNameTaken, errors.TooManyTokens, errors.Unauthorized),
    ),
    Endpoint(
        method="DELETE",
        path="/tokens/{token_id}",
        access=PERSONAL,
        handler=tokens.revoke,
        does="Revokes a session or token.",
        answers={204: None},
    ),
)
ROUTES = route_all(ENDPOINTS)
