"""Turns errors into answers: has the only table from error class to HTTP status, and writes the errors body."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from draupnir import errors
from draupnir.api.bodies import BodyTooLarge, BodyTooSlow, quote
from draupnir.api.schemas.answers import Problems

log = logging.getLogger(__name__)

# The most specific class wins.
STATUSES: dict[type[errors.DraupnirError], int] = {
    errors.InvalidRequest: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    BodyTooSlow: 408,
    errors.WrongState: 409,
    BodyTooLarge: 413,
    errors.Impossible: 422,
    errors.TooManyRequests: 429,
    errors.TooManyInstances: 429,
    errors.TooManyTokens: 429,
    errors.Unavailable: 503,
    errors.NoRoom: 507,
    errors.DraupnirError: 500,
}

HEADERS: dict[int, dict[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    503: {"Retry-After": "5"},
}


# Requests may be refused with these before routing, by status. connections.py sends those for slow and long headers.
EDGE_CODES: dict[int, tuple[str, ...]] = {
    400: ("invalid_http",),
    408: ("header_too_slow",),
    431: ("header_too_large",),
}
# Unknown paths and methods return these.
ROUTING_CODES = ("invalid_request", "method_not_allowed", "not_found")


def status_of(error: errors.DraupnirError) -> int:
    """Return the HTTP status of an error, by its most specific class in the table."""
    return status_of_kind(type(error))


def status_of_kind(kind: type[errors.DraupnirError]) -> int:
    """Return the HTTP status of a class of errors."""
    return next(STATUSES[each] for each in kind.__mro__ if each in STATUSES)


def codes_of(kind: type[errors.DraupnirError]) -> frozenset[str]:
    """Return the codes of errors of the class."""
    return errors.FAILURE_CODES if kind is errors.ImageFailed else frozenset({kind.code})


def headers_of(error: errors.DraupnirError) -> dict[str, str]:
    """Return the additional headers of an error's answer."""
    if isinstance(error, errors.TooManyRequests):
        return {"Retry-After": str(error.retry_after_s)}
    return HEADERS.get(status_of(error), {})


def errors_body(status: int, code: str, title: str, detail: str) -> Problems:
    """Return the body of every error."""
    return {"errors": [{"status": str(status), "code": code, "title": title, "detail": detail}]}


def problem(status: int, code: str, title: str, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer for an error."""
    return JSONResponse(
        errors_body(status, code, title, detail), status, {**HEADERS.get(status, {}), **(headers or {})}
    )


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """Answer a DraupnirError, raised by an operation or by the parser of a request."""
    assert isinstance(error, errors.DraupnirError)
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s: %s: %s", request.method, quote(request.url.path), error.code, error.detail)
    request.state.error_code = error.code
    return problem(status, error.code, error.title, error.detail, headers_of(error))


async def answer_routing(request: Request, error: Exception) -> JSONResponse:
    """Answer an unknown path or method."""
    assert isinstance(error, HTTPException)
    path = quote(request.url.path)
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"{path} does not exist; the resources are /images, /instances, /tokens and /health_check."
        return problem(404, "not_found", "Not found", detail)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{path} does not support {quote(request.method)}; it supports {allowed}."
        return problem(405, "method_not_allowed", "Method not allowed", detail, error.headers)
    return problem(error.status_code, "invalid_request", "Invalid request", error.detail, error.headers)


def answer_ambiguous() -> JSONResponse:
    """Answer a request with an ambiguous length; the data after it is not read."""
    detail = "The request has Transfer-Encoding together with Content-Length, or in HTTP/1.0; send Content-Length only."
    return problem(400, "invalid_http", "Invalid HTTP", detail, {"Connection": "close"})


def answer_unexpected(request_id: str) -> JSONResponse:
    """Answer an unexpected error. The journal has the details under the same request id."""
    detail = f"An unexpected error occurred in the service; its journal has the details under request {request_id}."
    return problem(500, "internal", "Internal error", detail)


def answer_stopping() -> JSONResponse:
    """Answer a request that was still waiting when the service stopped."""
    detail = "The service is restarting, and running work continues after that; try again in a moment."
    return problem(503, "unavailable", "Not available", detail)
