"""Every URL of the service on one screen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from draupnir.api import health, images, instances
from draupnir.api.auth import caller_of
from draupnir.models import Caller

Handler = Callable[[Request, Caller], Awaitable[Response]]


def resource(path: str, **handlers: Handler) -> Route:
    """One path with a handler a method (GET answers HEAD too), each called with whoever sent the request."""

    async def answer(request: Request) -> Response:
        caller = await caller_of(request)
        return await handlers["GET" if request.method == "HEAD" else request.method](request, caller)

    return Route(path, answer, methods=list(handlers))


ROUTES = [
    Route("/health_check", health.check, methods=["GET"]),
    resource("/images", GET=images.list_all, POST=images.create),
    resource("/images/{image_id}", GET=images.show, PATCH=images.update, DELETE=images.destroy),
    resource("/images/{image_id}/done", POST=images.finalise),
    resource("/instances", GET=instances.list_own, POST=instances.create),
    resource("/instances/{instance_id}", GET=instances.show, DELETE=instances.destroy),
]
