"""Handlers of /sessions: exchange a code for a token, show the current identity, sign out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draupnir.api.bodies import read_document
from draupnir.api.requests import context_of
from draupnir.api.schemas.requests import read_attributes
from draupnir.api.schemas.sessions import NewSession, write_caller, write_new_session
from draupnir.callers import Caller
from draupnir.operations import sign_in, tokens


async def create(request: Request, caller: Caller) -> Response:
    """POST /sessions; the only answer with its token"""
    wish = read_attributes(await read_document(request), "sessions", NewSession)
    made, token, role = await sign_in.redeem(context_of(request), wish.code, wish.code_verifier)
    request.state.caller = Caller(made.owner, role)
    return JSONResponse({"data": write_new_session(made, token, role)}, 201, {"Location": f"/tokens/{made.id}"})


async def show(request: Request, caller: Caller) -> Response:
    """GET /sessions/current: the current identity"""
    return JSONResponse({"data": write_caller(caller)})


async def destroy(request: Request, caller: Caller) -> Response:
    """DELETE /sessions/current: revokes the token of the request"""
    await tokens.sign_out(context_of(request), caller)
    return Response(status_code=204)
