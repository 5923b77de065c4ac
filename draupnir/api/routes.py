"""Every URL of the service on one screen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from draupnir import roles
from draupnir.api import addresses, events, health, images, instances, sessions, sign_ins, tokens
from draupnir.api.auth import ANONYMOUS, caller_of
from draupnir.api.limits import limited
from draupnir.api.pages import for_people
from draupnir.models import Caller

Handler = Callable[[Request, Caller], Awaitable[Response]]


def resource(path: str, **handlers: Handler) -> Route:
    """One path with a handler a method (GET answers HEAD too), each called with whoever sent the request.

    Raises KeyError when a method has no row in the table of roles.
    """
    public = {method for method in handlers if roles.is_public(method, path)}

    async def answer(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        caller = ANONYMOUS if method in public else await caller_of(request)
        return await handlers[method](request, roles.admit(method, path, caller))

    return Route(path, answer, methods=list(handlers))


ROUTES = [
    resource("/health_check", GET=health.check),
    resource("/images", GET=images.list_all, POST=images.create),
    resource("/images/{image_id}", GET=images.show, PATCH=images.update, DELETE=images.destroy),
    resource("/images/{image_id}/done", POST=images.finalise),
    resource("/images/{image_id}/error", GET=images.show_error),
    resource("/instances", GET=instances.list_some, POST=instances.create),
    resource("/instances/{instance_id}/restart", POST=instances.restart),
    resource("/instances/{instance_id}/restore", POST=instances.restore),
    resource("/instances/{instance_id}", GET=instances.show, DELETE=instances.destroy),
    resource(
        "/instances/{instance_id}/addresses",
        GET=addresses.list_all,
        POST=addresses.create,
        DELETE=addresses.destroy,
    ),
    resource("/events", GET=events.list_some),
    resource("/sign_ins", POST=limited(sign_ins.create)),
    resource("/authenticate", GET=for_people(limited(sign_ins.authenticate))),
    resource("/oauth_callback", GET=for_people(limited(sign_ins.come_back))),
    resource("/sessions", POST=limited(sessions.create)),
    resource("/sessions/current", GET=sessions.show, DELETE=sessions.destroy),
    resource("/tokens", GET=tokens.list_own, POST=tokens.create),
    resource("/tokens/{token_id}", DELETE=tokens.revoke),
]
