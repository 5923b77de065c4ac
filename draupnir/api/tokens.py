"""Handlers of /tokens: the caller's sessions and the tokens they made for programs."""

from __future__ import annotations

from datetime import timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draupnir.api import schemas, token_schemas
from draupnir.api.bodies import read_document
from draupnir.models import Caller
from draupnir.operations import tokens


async def list_own(request: Request, caller: Caller) -> Response:
    """GET /tokens"""
    found = await tokens.list_own(request.app.state.context, caller)
    return JSONResponse({"data": [token_schemas.write_token(each, caller) for each in found]})


async def create(request: Request, caller: Caller) -> Response:
    """POST /tokens: the one time that the token is told"""
    wish = schemas.read_attributes(await read_document(request), "tokens", token_schemas.NewToken)
    lifetime = timedelta(seconds=wish.expires_in)
    made, token = await tokens.create(request.app.state.context, caller, wish.name, wish.scope, lifetime)
    written = token_schemas.write_token(made, caller, token)
    return JSONResponse({"data": written}, 201, {"Location": f"/tokens/{made.id}"})


async def revoke(request: Request, caller: Caller) -> Response:
    """DELETE /tokens/N"""
    token_id = schemas.existing_id(request.path_params["token_id"], "token")
    await tokens.revoke(request.app.state.context, caller, token_id)
    return Response(status_code=204)
