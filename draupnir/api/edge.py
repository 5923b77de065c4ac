"""The outermost layer of the application: a request's id, its line in the log, and what nobody else caught."""

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

from draupnir.api import problems

log = logging.getLogger(__name__)
access_log = logging.getLogger("draupnir.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLIENT_GONE = 499
"""Written to the log in place of a status when the client went away before it had sent its request."""


class Edge:
    """Tags each answer with X-Request-Id (the client's own if it is plain), and logs one line an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; whatever the application raises, the client gets an answer and the journal the cause."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        status = 0
        started_s = time.monotonic()
        scope.setdefault("state", {})

        async def send_tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_tagged)
        except ClientDisconnect:
            status = CLIENT_GONE
        except asyncio.CancelledError:
            # The server cancels what is still waiting when it stops; left to itself it would answer 500.
            if not status:
                await problems.answer_stopping()(scope, receive, send_tagged)
        except Exception:
            log.exception("request %s failed", request_id)
            if status:
                raise
            await problems.answer_unexpected(request_id)(scope, receive, send_tagged)
        finally:
            _log_access(scope, request_id, status, time.monotonic() - started_s)


def _log_access(scope: Scope, request_id: str, status: int, took_s: float) -> None:
    caller = scope["state"].get("caller")
    # Health checks come every few seconds; only the bad ones are news.
    level = logging.DEBUG if scope["path"] == "/health_check" and status == 200 else logging.INFO
    access_log.log(
        level,
        "request=%s caller=%s method=%s path=%s status=%d ms=%d",
        request_id,
        caller.name if caller else "-",
        quote(scope["method"], safe=""),
        quote(scope["path"], errors="replace"),
        status,
        took_s * 1000,
    )
