"""Limits the time of each phase of an open connection of the API.

uvicorn only limits the idle time between two requests. It waits without limit for the rest of a header or body, and for
a client that does not read its answer. Here each connection is in one phase, and each phase that waits for the client
has a time limit.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import sys
from enum import Enum
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from draupnir.api.bodies import BODY_TIMEOUT_S
from draupnir.api.edge import SECURITY_HEADERS, access_log
from draupnir.api.limits import ClientNetwork
from draupnir.api.problems import errors_body
from draupnir.serving.admission import Connections

log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 16 * 1024
# Clients and reverse proxies have shorter idle timeouts (httpx 5 s, nginx 60 s), so they close first.
KEEP_ALIVE_S = 75


class Phase(Enum):
    """The phase of a connection. In all phases except ANSWER it waits for the client."""

    HANDSHAKE = "handshake"
    HEADER = "header"
    BODY = "body"
    ANSWER = "answer"
    UNREAD = "unread"
    LEFT_OVER = "left over"
    IDLE = "idle"
    CLOSING = "closing"


HANDSHAKE_TIMEOUT_S = 10.0
CLOSING_TIMEOUT_S = 5.0
# When the service stops, a new client whose first request is on its way has this time.
LAST_REQUEST_S = 1.0
# asyncio limits the handshake, and uvicorn the idle time.
TIMEOUTS_S = {
    Phase.HEADER: 10.0,
    # A handler that reads the body answers 408 before this limit.
    Phase.BODY: BODY_TIMEOUT_S + 5,
    # An answer exceeds the buffers of kernel and transport, and the client does not read it.
    Phase.UNREAD: 60.0,
    # The request is answered already. Its rest is read, because the client may lose the answer otherwise.
    Phase.LEFT_OVER: 5.0,
    Phase.CLOSING: CLOSING_TIMEOUT_S,
}


class BoundedHeaders(h11.Connection):
    """h11 with a limit also for a header that arrives in one piece; h11 itself only limits incomplete headers."""

    def next_event(self) -> Any:
        """Return the next event. Raises RemoteProtocolError 431 for headers or trailers above MAX_HEADER_BYTES."""
        before_bytes = self._unread_bytes()
        event = super().next_event()
        headers = isinstance(event, h11.Request | h11.EndOfMessage)
        if headers and before_bytes - self._unread_bytes() > MAX_HEADER_BYTES:
            raise h11.RemoteProtocolError("header too long", error_status_hint=431)
        return event

    def _unread_bytes(self) -> int:
        # trailing_data would copy, and bodies pass through here, too.
        return len(self._receive_buffer)


class Connection(H11Protocol):
    """A connection of one client."""

    def __init__(self, connections: Connections, network: ClientNetwork, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.conn = BoundedHeaders(h11.SERVER, MAX_HEADER_BYTES)
        self.network = network
        self.handshake: asyncio.Task[None] | None = None
        self._connections = connections
        self._phase = Phase.HANDSHAKE
        self._deadline: asyncio.TimerHandle | None = None
        self._unread = False
        self._refused = False
        self._stopping = False

    def cut(self) -> None:
        """Close the connection at once, in any phase."""
        if self._phase is Phase.HANDSHAKE:
            assert self.handshake is not None
            self.handshake.cancel()
        else:
            self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start after the client connected, with TLS after the handshake."""
        super().connection_made(transport)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after either side closed the connection."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if self._deadline is not None:
            self._deadline.cancel()
        self._connections.leave(self)

    def data_received(self, data: bytes) -> None:
        """Process received data, or discard it after a refusal, so that the client gets the answer."""
        if not self._refused:
            super().data_received(data)
            # A client that uses HTTP/2 with prior knowledge could not parse our answer.
            last = self._stopping or self.conn.their_http_version not in {b"1.0", b"1.1"}
            if last and self.cycle is not None:
                self.cycle.keep_alive = False
            self._look()

    def handle_events(self) -> None:
        """Process the received events."""
        try:
            super().handle_events()
        except ValueError:
            # Debian 13's h11 calls int() for a Content-Length of any length, which raises for too many digits.
            self.send_400_response("")

    def on_response_complete(self) -> None:
        """Update the phase after an answer was written."""
        super().on_response_complete()
        self._look()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection after the idle timeout."""
        super().timeout_keep_alive_handler()
        self._look()

    def pause_writing(self) -> None:
        """Update the phase when the client reads slower than we write."""
        super().pause_writing()
        self._unread = True
        self._look()

    def resume_writing(self) -> None:
        """Update the phase after the client has read."""
        super().resume_writing()
        self._unread = False
        self._look()

    def shutdown(self) -> None:
        """Close an idle connection when the service stops, or else close it after the current answer."""
        if self.transport.is_closing():
            return
        if self._phase is Phase.HEADER:
            self._stopping = True
            self._end_within(LAST_REQUEST_S)
        else:
            super().shutdown()
            self._look()

    def _phase_now(self) -> Phase:
        if self.transport.is_closing():
            return Phase.UNREAD if self.transport.get_write_buffer_size() else Phase.CLOSING
        if self._unread:
            return Phase.UNREAD
        if self._refused:
            return Phase.LEFT_OVER
        if self.conn.their_state is h11.SEND_BODY:
            return Phase.LEFT_OVER if self.conn.our_state in (h11.DONE, h11.MUST_CLOSE) else Phase.BODY
        if self.conn.their_state is h11.IDLE:
            return Phase.HEADER if self.timeout_keep_alive_task is None else Phase.IDLE
        return Phase.ANSWER

    def _look(self) -> None:
        phase = self._phase_now()
        if phase is self._phase:
            return
        self._phase = phase
        self._end_within(TIMEOUTS_S.get(phase))
        if phase is Phase.ANSWER:
            self._connections.works(self)
        else:
            self._connections.waits(self)

    def _end_within(self, timeout_s: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if timeout_s is None else self.loop.call_later(timeout_s, self._time_out)

    def _time_out(self) -> None:
        if self._phase is Phase.HEADER and self.conn.trailing_data[0]:
            self._refuse(
                408,
                "header_too_slow",
                "Header too slow",
                f"The request's header did not arrive within {TIMEOUTS_S[Phase.HEADER]:.0f} seconds; send it again.",
            )
        else:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer invalid HTTP in the format of all our answers. uvicorn calls this while it handles h11's error."""
        error = sys.exc_info()[1]
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            detail = f"The request's header is longer than {MAX_HEADER_BYTES} bytes (16 KiB); send a shorter one."
            self._refuse(431, "header_too_large", "Header too large", detail)
        else:
            detail = "The request is not valid HTTP; send it with an ordinary HTTP client."
            self._refuse(400, "invalid_http", "Invalid HTTP", detail)

    def _refuse(self, status: int, code: str, title: str, detail: str) -> None:
        """Answer an invalid or incomplete request, and close."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            # Another answer is being sent, and this one would corrupt it.
            self.transport.abort()
            return
        request_id = secrets.token_hex(8)
        body = json.dumps(errors_body(status, code, title, detail)).encode()
        headers = {
            **SECURITY_HEADERS,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "X-Request-Id": request_id,
        }
        for event in (
            h11.Response(status_code=status, headers=list(headers.items())),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        # Closing with unread data resets the connection, and the client may lose the answer.
        self._refused = self.transport.can_write_eof()
        if self._refused:
            self.transport.write_eof()
        else:
            self.transport.close()
        self._look()
        if self._connections.lines.admit(self.network):
            access_log.info(
                "request=%s caller=- source=%s method=- path=- status=%d code=%s",
                request_id,
                self.client[0] if self.client else "-",
                status,
                code,
            )

    def _unsupported_upgrade_warning(self) -> None:
        """Do nothing. A request for a websocket gets an ordinary answer and no line in the journal."""
