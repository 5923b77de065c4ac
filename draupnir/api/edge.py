"""The outermost middleware: assigns request ids, logs requests, sets headers, and answers unexpected errors."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from draupnir import audit
from draupnir.api import problems
from draupnir.api.client_addresses import client_address_of
from draupnir.api.limits import Lines, network_of
from draupnir.settings import Settings

log = logging.getLogger(__name__)
access_log = logging.getLogger("draupnir.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLIENT_GONE = 499
"""The status in the log if the client closed the connection before the end of its request."""


SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

# Answers are for programs, may contain credentials, and must not be embedded. An answer that needs other headers, such
# as a page of the sign-in, sets them itself.
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Answers over TLS have this header. Browsers ignore it otherwise, and a reverse proxy sets its own.
TLS_HEADERS = {"Strict-Transport-Security": "max-age=31536000"}


class Edge:
    """Adds X-Request-Id to each answer (the client's own if it is plain), and logs one line for each answer.

    Changing requests go to the audit log, others to the access log, both without the query. A network that sends too
    many requests gets no lines for requests that change nothing.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self._lines = Lines()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. After any exception the client gets an answer, and the journal has the cause."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        client_address = client_address_of(scope, self.settings)
        origin = audit.Origin("-", str(client_address or "-"), request_id, answered=False)
        audit.origin.set(origin)
        status, made = 0, ""
        started_s = time.monotonic()
        scope.setdefault("state", {})["client_address"] = client_address

        async def send_tagged(message: Message) -> None:
            nonlocal status, made
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in {**SECURITY_HEADERS, **(TLS_HEADERS if scope["scheme"] == "https" else {})}.items():
                    headers.setdefault(name, value)
                made = headers.get("location", "") if status == 201 else ""
            await send(message)

        try:
            answer = problems.answer_ambiguous() if _is_ambiguous(scope) else self.app
            await answer(scope, receive, send_tagged)
        except ClientDisconnect:
            status = CLIENT_GONE
        except asyncio.CancelledError:
            # The server cancels waiting requests when it stops. Without this answer, they would get 500.
            if not status:
                await problems.answer_stopping()(scope, receive, send_tagged)
        except Exception:
            log.exception("request %s failed", request_id)
            if status:
                raise
            await problems.answer_unexpected(request_id)(scope, receive, send_tagged)
        finally:
            caller = scope["state"].get("caller")
            origin.caller, origin.answered = caller.name if caller else "-", True
            has_changed = scope["method"] not in SAFE_METHODS and status < 400
            if has_changed or self._lines.admit(network_of(client_address)):
                _log(scope, origin, status, made, round((time.monotonic() - started_s) * 1000))


def _is_ambiguous(scope: Scope) -> bool:
    """Return whether a proxy may see another end of the request than we do, which allows request smuggling."""
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers and ("content-length" in headers or scope["http_version"] != "1.1")


def _log(scope: Scope, origin: audit.Origin, status: int, made: str, took_ms: int) -> None:
    method, path, state = scope["method"], scope["path"], scope["state"]
    if method not in SAFE_METHODS or state.get("audited"):
        code = state.get("error_code", "")
        audit.record_request(origin, method, path, status, code=code, made=made, took_ms=took_ms)
        return
    # Health checks are frequent, so log only failed ones.
    level = logging.DEBUG if path == "/health_check" and status == 200 else logging.INFO
    access_log.log(
        level,
        "request=%s caller=%s source=%s method=%s path=%s status=%d ms=%d",
        origin.request_id,
        quote(origin.caller, safe="@+"),
        origin.client_address,
        quote(method, safe=""),
        quote(path[: audit.MAX_VALUE_CHARS], errors="replace"),
        status,
        took_ms,
    )
