"""Handler of /health_check: well only if the metadata, the helper and the storage answer, else which does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draupnir import errors
from draupnir.api.problems import HEADERS, errors_body
from draupnir.models import Caller
from draupnir.operations.context import Context

PART_TIMEOUT_S = 5.0


async def check(request: Request, caller: Caller) -> Response:
    """GET /health_check: 200 {"status": "ok"}, or 503 with each part's "ok" or why it is not."""
    context: Context = request.app.state.context
    metadata, helper = await asyncio.gather(_state_of(context.store.ping()), _state_of(_check_helper(context)))
    parts = {"metadata": metadata, "helper": helper}
    away = [f"{part}: {state}" for part, state in parts.items() if state != "ok"]
    if not away:
        return JSONResponse({"status": "ok"})
    problem = errors_body(503, "unavailable", "Not available", " ".join(away) + " `draupnir doctor` says what to do.")
    return JSONResponse({"status": "unavailable", "parts": parts, **problem}, 503, HEADERS[503])


async def _check_helper(context: Context) -> None:
    inspection = await context.helper.inspect()
    if inspection.storage is None:
        raise errors.StorageMissing("The data filesystem is not mounted, or not safely.")


async def _state_of(answer: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(PART_TIMEOUT_S):
            await answer
    except TimeoutError:
        return f"No answer within {PART_TIMEOUT_S:.0f} seconds."
    except errors.DraupnirError as error:
        return error.detail
    return "ok"
