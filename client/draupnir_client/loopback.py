"""The listener on 127.0.0.1 to which the browser returns the code (RFC 8252, section 7.3).

It accepts one `GET /` with a code or an error in the query. It answers all other requests with 404 and continues to
wait. Its page is fixed text.
"""

from __future__ import annotations

import queue
import re
import socketserver
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

HOST = "127.0.0.1"
# A speculative connection of a browser, or a port scanner, can occupy a thread for this long.
IDLE_TIMEOUT_S = 10.0
PAGE_TIMEOUT_S = 5.0
# Python handles a Ctrl-C that arrives just before it waits for a lock only after the wait, so waits are short.
_GLANCE_S = 0.2

# The code is base64url, the error one of the API's codes.
_ANSWERS = {"code": re.compile(r"[A-Za-z0-9_-]{16,256}"), "error": re.compile(r"[a-z_]{1,64}")}
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Connection": "close",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Draupnir</title></head>'
    "<body><h1>{}</h1><p>{}</p></body></html>"
)
_SIGNED_IN = _PAGE.format("You are signed in", "You are signed in; you can close this tab.")
_NOT_SIGNED_IN = _PAGE.format("You are not signed in", "See the reason in your terminal; you can close this tab.")


@dataclass
class Arrival:
    """The request of the browser, with a code, or with the API's code of an error. The browser waits for `answer`."""

    code: str | None
    error: str | None
    _page: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    _shown: threading.Event = field(default_factory=threading.Event)

    def answer(self, *, signed_in: bool) -> None:
        """Send the result to the browser, and return when the page is sent or the connection is closed."""
        self._page.put(_SIGNED_IN if signed_in else _NOT_SIGNED_IN)
        self._shown.wait(PAGE_TIMEOUT_S)


class _Server(socketserver.ThreadingTCPServer):
    # The class of http.server would resolve the name of its address.
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self.first = threading.Lock()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing, because a client that disconnects early does not concern the user."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = IDLE_TIMEOUT_S

    def do_GET(self) -> None:  # noqa: N802 - the name is http.server's
        """Accept the first request that has a code or an error."""
        arrival = self._arrival()
        if arrival is None or not self.server.first.acquire(blocking=False):
            self.send_error(404)
            return
        self.server.arrivals.put(arrival)
        try:
            self._show(200, arrival._page.get())
        finally:
            arrival._shown.set()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer 404 to any other request, without quoting it."""
        self._show(404, "")

    def _arrival(self) -> Arrival | None:
        # Another host name means DNS rebinding: a page elsewhere whose name resolves to this address.
        if self.headers.get_all("Host") != [f"{HOST}:{self.server.port}"]:
            return None
        target = urlsplit(self.path)
        answer = parse_qsl(target.query, keep_blank_values=True)
        if target.path != "/" or target.netloc or len(answer) != 1:
            return None
        name, value = answer[0]
        if name not in _ANSWERS or not _ANSWERS[name].fullmatch(value):
            return None
        return Arrival(value, None) if name == "code" else Arrival(None, value)

    def _show(self, status: int, page: str) -> None:
        content = page.encode()
        self.close_connection = True
        self.send_response_only(status)
        for name, value in {**_HEADERS, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name is http.server's
        """Print nothing, because the request line contains the code."""


class Listener:
    """Listens on `port` inside a `with` block."""

    def __init__(self) -> None:
        self._server = _Server()
        self.port = self._server.port

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, timeout_s: float) -> Arrival | None:
        """Return the browser's request, or None after the timeout."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            with suppress(queue.Empty):
                return self._server.arrivals.get(timeout=min(left_s, _GLANCE_S))
        return None
