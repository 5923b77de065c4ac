"""Handlers of sign-ins: the client's request, and the two requests of the browser before and after the provider.

A secret in a cookie binds the browser. The cookie is for this host only, hidden from scripts, and not sent with
embedded requests of other sites.
"""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from draupnir import errors
from draupnir.api import pages
from draupnir.api.bodies import read_document
from draupnir.api.requests import context_of
from draupnir.api.schemas.requests import read_attributes
from draupnir.api.schemas.sessions import NewSignIn, write_sign_in
from draupnir.callers import Caller
from draupnir.operations import sign_in
from draupnir.operations.context import Context
from draupnir.roles import role_of

LOOPBACK = "http://127.0.0.1:{}/?{}"


async def create(request: Request, caller: Caller) -> Response:
    """POST /sign_ins"""
    wish = read_attributes(await read_document(request), "sign_ins", NewSignIn)
    url, expires_at = await sign_in.begin(context_of(request), wish.code_challenge, wish.loopback_port)
    return JSONResponse({"data": write_sign_in(url, expires_at)}, 201)


async def authenticate(request: Request, caller: Caller) -> Response:
    """GET /authenticate?sign_in=…: redirects to the identity provider"""
    context = context_of(request)
    url, secret = await sign_in.send_off(context, request.query_params.get("sign_in", ""))
    answer = RedirectResponse(url, 302)
    _set_cookie(answer, context, secret, int(sign_in.LIFETIME.total_seconds()))
    return answer


async def come_back(request: Request, caller: Caller) -> Response:
    """GET /oauth_callback: the return from the identity provider; redirects to the client's listener, if any"""
    context = context_of(request)
    query = request.query_params
    state, secret = query.get("state", ""), request.cookies.get(_cookie_name(context), "")
    pending = await sign_in.come_back(context, state, secret)
    answer = sign_in.Answer(query.get("code"), query.get("error"), query.get("iss"))
    try:
        email, code = await sign_in.vouch(context, pending, state, secret, answer)
    except (errors.SignInRefused, errors.ProviderUnavailable) as error:
        if pending.loopback_port is None:
            raise
        request.state.error_code = error.code
        response: Response = _to_client(pending.loopback_port, error=error.code)
    else:
        request.state.caller = Caller(email, role_of(email, context.settings.admins))
        listens = pending.loopback_port is not None
        response = _to_client(pending.loopback_port, code=code) if listens else pages.show_code(code)
    _set_cookie(response, context, "", 0)
    return response


def _to_client(port: int | None, **answer: str) -> RedirectResponse:
    # The client chooses only the port, so this cannot redirect to another machine.
    return RedirectResponse(LOOPBACK.format(port, urlencode(answer)), 302)


def _is_private(context: Context) -> bool:
    return context.sign_in is not None and context.settings.public_url.startswith("https://")


def _cookie_name(context: Context) -> str:
    # With this prefix no other host of the domain can set the cookie; browsers accept the prefix only with TLS.
    return "__Host-draupnir_sign_in" if _is_private(context) else "draupnir_sign_in"


def _set_cookie(answer: Response, context: Context, secret: str, max_age_s: int) -> None:
    answer.set_cookie(
        _cookie_name(context), secret, max_age_s, path="/", secure=_is_private(context), httponly=True, samesite="lax"
    )
