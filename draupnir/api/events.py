"""Handler of /events."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draupnir.api.bodies import quote
from draupnir.api.requests import context_of, read_flag
from draupnir.api.schemas.events import write_event
from draupnir.callers import Caller
from draupnir.errors import InvalidRequest
from draupnir.operations import events

_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
MAX_EVENT_ID = 10**18 - 1


async def list_some(request: Request, caller: Caller) -> Response:
    """GET /events: the caller's last ones, with ?all=true those of all users, with ?after=ID the first after that"""
    context, after = context_of(request), _read_after(request)
    if read_flag(request.query_params, "all"):
        found = await events.list_everybodys(context, caller, after)
    else:
        found = await events.list_own(context, caller, after)
    return JSONResponse({"data": [write_event(each) for each in found]})


def _read_after(request: Request) -> int | None:
    given = request.query_params.get("after")
    if given is None:
        return None
    if not _ID.fullmatch(given):
        raise InvalidRequest(f"after={quote(given)} is not the id of an event; give a number, such as after=17.")
    return int(given)
