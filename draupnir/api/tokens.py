"""Handlers of /tokens: the caller's sessions and named tokens."""

from __future__ import annotations

from datetime import timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draupnir.api.bodies import read_document
from draupnir.api.requests import context_of, path_id
from draupnir.api.schemas.requests import read_attributes
from draupnir.api.schemas.tokens import NewToken, write_token
from draupnir.callers import Caller
from draupnir.operations import tokens


async def list_own(request: Request, caller: Caller) -> Response:
    """GET /tokens"""
    found = await tokens.list_own(context_of(request), caller)
    return JSONResponse({"data": [write_token(each, caller) for each in found]})


async def create(request: Request, caller: Caller) -> Response:
    """POST /tokens; the only answer with the token"""
    wish = read_attributes(await read_document(request), "tokens", NewToken)
    lifetime = timedelta(seconds=wish.expires_in)
    made, token = await tokens.create(context_of(request), caller, wish.name, wish.scope, lifetime)
    written = write_token(made, caller, token)
    return JSONResponse({"data": written}, 201, {"Location": f"/tokens/{made.id}"})


async def revoke(request: Request, caller: Caller) -> Response:
    """DELETE /tokens/N"""
    token_id = path_id(request, "token")
    await tokens.revoke(context_of(request), caller, token_id)
    return Response(status_code=204)
