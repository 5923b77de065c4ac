"""Handlers of /sessions: a token for a code, whom a token stands for, and signing out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draupnir.api import schemas, token_schemas
from draupnir.api.bodies import read_document
from draupnir.models import Caller
from draupnir.operations import sign_in, tokens


async def create(request: Request, caller: Caller) -> Response:
    """POST /sessions: the one time that its token is told"""
    wish = schemas.read_attributes(await read_document(request), "sessions", token_schemas.NewSession)
    made, token, role = await sign_in.redeem(request.app.state.context, wish.code, wish.code_verifier)
    request.state.caller = Caller(made.owner, role)
    attributes = {
        "token": token,
        "email": made.owner,
        "role": role.value,
        "expires_at": schemas.write_time(made.expires_at),
    }
    session = {"type": "sessions", "id": made.id, "attributes": attributes}
    return JSONResponse({"data": session}, 201, {"Location": f"/tokens/{made.id}"})


async def show(request: Request, caller: Caller) -> Response:
    """GET /sessions/current: who am I"""
    return JSONResponse({"data": token_schemas.write_caller(caller)})


async def destroy(request: Request, caller: Caller) -> Response:
    """DELETE /sessions/current: revokes what the request carries"""
    await tokens.sign_out(request.app.state.context, caller)
    return Response(status_code=204)
