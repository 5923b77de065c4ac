"""Handler of /health_check. The service is healthy if metadata, helper and storage answer and the disk has space."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draupnir import errors
from draupnir.api.problems import HEADERS, errors_body
from draupnir.api.requests import context_of
from draupnir.api.schemas.answers import Health, HealthParts, Unhealthy
from draupnir.callers import Caller
from draupnir.operations import disk
from draupnir.operations.context import Context
from draupnir_helper import wire

PART_TIMEOUT_S = 5.0


async def check(request: Request, caller: Caller) -> Response:
    """GET /health_check returns 200 {"status": "ok"}, or 503 with "ok" or the problem of each part.

    While the disk is low, before instances are stopped, 200 also has "disk": "low".
    """
    context = context_of(request)
    rooms: list[wire.Room] = []
    metadata, helper = await asyncio.gather(_state_of(context.store.ping()), _state_of(_check_helper(context, rooms)))
    parts: HealthParts = {"metadata": metadata, "helper": helper}
    for room in rooms:
        if disk.is_critical(room):
            parts["disk"] = (
                f"The data disk has only {room.free_bytes >> 20} MiB free, so the instances that write most are"
                " stopped; destroy instances or images, or enlarge the disk."
            )
    away = [f"{part}: {state}" for part, state in parts.items() if state != "ok"]
    if not away:
        low = any(room.free_bytes < room.low_bytes for room in rooms)
        healthy: Health = {"status": "ok", "disk": "low"} if low else {"status": "ok"}
        return JSONResponse(healthy)
    problem = errors_body(503, "unavailable", "Not available", " ".join(away) + " Run `draupnir doctor` on the server.")
    unhealthy: Unhealthy = {"status": "unavailable", "parts": parts, **problem}
    return JSONResponse(unhealthy, 503, HEADERS[503])


async def _check_helper(context: Context, rooms: list[wire.Room]) -> None:
    inspection = await context.helper.inspect()
    if inspection.storage is None:
        raise errors.StorageMissing("The data filesystem is not mounted, or its mount options are wrong.")
    rooms.append(inspection.storage.room)


async def _state_of(answer: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(PART_TIMEOUT_S):
            await answer
    except TimeoutError:
        return f"No answer within {PART_TIMEOUT_S:.0f} seconds."
    except errors.DraupnirError as error:
        return error.detail
    return "ok"
