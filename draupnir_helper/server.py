"""The socket server: checks the peer, reads a request, dispatches it and answers; independent of the requests."""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from pydantic import ValidationError

from draupnir_helper.errors import HelperError, from_os_error
from draupnir_helper.wire import (
    MAX_REQUEST_BYTES,
    PROTOCOL,
    Answer,
    AnyRequest,
    ErrorCode,
    OtherProtocol,
    Refusal,
    Wire,
    parse_request,
)

THREADS = 16
_TIMEOUT_S = 5

log = logging.getLogger(__name__)

Dispatch = Callable[[AnyRequest], Wire]


def peer_uid(connection: socket.socket) -> int:
    """Return the uid of the peer from the kernel, which fills struct ucred: a pid_t and two unsigned ids."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("=iII"))
    _, uid, _ = struct.unpack("=iII", credentials)
    return int(uid)


def serve(listener: socket.socket, dispatch: Dispatch, allowed_uids: Collection[int]) -> None:
    """Answer one request per connection until the listener closes; close connections of other uids without reading."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="request") as pool:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                if listener.fileno() == -1:
                    return
                raise
            uid = peer_uid(connection)
            if uid not in allowed_uids:
                log.warning("refused a connection from uid %d", uid)
                connection.close()
                continue
            pool.submit(_converse, connection, dispatch)


def _converse(connection: socket.socket, dispatch: Dispatch) -> None:
    with connection:
        try:
            answer = answer_to(_read(connection), dispatch)
            connection.settimeout(_TIMEOUT_S)
            connection.sendall(answer.model_dump_json(exclude_none=True).encode())
        except (TimeoutError, ConnectionError) as error:
            log.info("the caller closed the connection: %s", error)


def _read(connection: socket.socket) -> bytes:
    """Read until the caller half-closes, at most one byte over the limit."""
    received = bytearray()
    deadline = time.monotonic() + _TIMEOUT_S
    while len(received) <= MAX_REQUEST_BYTES:
        # The timeout is for the whole frame. Otherwise, slow single bytes could occupy a thread without limit.
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = connection.recv(65536)
        if not chunk:
            break
        received += chunk
    return bytes(received)


def answer_to(frame: bytes, dispatch: Dispatch) -> Answer:
    """Decode and dispatch a request, and turn every outcome into an answer. Never raises."""
    try:
        if len(frame) > MAX_REQUEST_BYTES:
            raise HelperError(ErrorCode.BAD_REQUEST, f"The request is larger than {MAX_REQUEST_BYTES} bytes.")
        request = parse_request(frame)
    except ValidationError as error:
        # Return neither values nor messages of pydantic, because they may quote the request.
        places = sorted({".".join(map(str, item["loc"])) or "request" for item in error.errors()})
        return _refuse(
            HelperError(ErrorCode.BAD_REQUEST, f"The request violates the contract: {', '.join(places)[:500]}.")
        )
    except OtherProtocol as error:
        detail = (
            f"The helper uses protocol {PROTOCOL} and got a request of protocol {error.number}, which happens during an"
            " upgrade; try again in a moment. `systemctl restart draupnir-helper draupnir` brings both to the installed"
            " version."
        )
        return _refuse(HelperError(ErrorCode.OTHER_PROTOCOL, detail))
    except HelperError as error:
        return _refuse(error)
    try:
        reply = dispatch(request)
    except HelperError as error:
        log.warning("%s: %s: %s", request.op, error.code, error.detail)
        return _refuse(error)
    except OSError as error:
        log.exception("%s failed", request.op)
        return _refuse(from_os_error(error))
    except Exception:
        log.exception("%s failed", request.op)
        return _refuse(HelperError(ErrorCode.INTERNAL, "The helper failed; see journalctl -u draupnir-helper."))
    return Answer(reply=reply.model_dump(mode="json"))


def _refuse(error: HelperError) -> Answer:
    return Answer(refusal=Refusal(code=error.code, detail=error.detail))
