"""Every URL of the service: one entry for each method of a path."""

from __future__ import annotations

import json
from functools import cache

from starlette.requests import Request
from starlette.responses import Response

from draupnir.api import health, openapi
from draupnir.api.endpoints import Endpoint, route_all
from draupnir.api.routes import images, instances, people
from draupnir.api.schemas.answers import Health, Unhealthy
from draupnir.callers import Caller
from draupnir.roles import PUBLIC


async def show_document(request: Request, caller: Caller) -> Response:
    """GET /openapi.json; constant for a version of the service"""
    return Response(_document(), media_type="application/json", headers={"Cache-Control": "public, max-age=3600"})


@cache
def _document() -> bytes:
    return json.dumps(openapi.describe(ENDPOINTS)).encode()


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
    *images.ENDPOINTS,
    *instances.ENDPOINTS,
    *people.ENDPOINTS,
)
ROUTES = route_all(ENDPOINTS)
