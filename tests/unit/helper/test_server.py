"""The helper's socket: any request of any peer gets a valid answer or a closed connection."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draupnir_helper import server, wire
from draupnir_helper.errors import HelperError
from draupnir_helper.server import answer_to
from draupnir_helper.wire import AnyRequest, ErrorCode, Wire

Ask = Callable[[bytes], bytes]


def echo(request: AnyRequest) -> Wire:
    match request:
        case wire.DestroyImage():
            raise HelperError(ErrorCode.IN_USE, "in use")
        case wire.CreateUpload(image_id=28):
            raise OSError(28, "No space left on device")
        case wire.CreateUpload(image_id=13):
            raise RuntimeError("a secret of the helper")
    return wire.Done()


GOOD = wire.CreateUpload(image_id=1).model_dump_json().encode()
PEM = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"
START = {
    "op": "start_instance", "instance_id": 1, "image_id": 1, "owner": "a@b.example", "port": 6432, "postgres_major": 17,
    "created_at": "2026-01-02T03:04:05Z", "new": True, "loopback_only": False, "addresses": None,
    "sleep_after_s": 1800, "direct": False, "superuser": False,
    "ceiling": {"max_bytes": 2**30, "read_only": False, "extended": False},
    "parameters": {"work_mem": "64MB"},
    "authority_certificate": PEM, "server_certificate": PEM, "server_key": PEM,
}  # fmt: skip


def encoded(request: dict[str, object]) -> bytes:
    return json.dumps({"protocol": wire.PROTOCOL} | request).encode()


def refusal(frame: bytes | dict[str, object]) -> wire.Refusal:
    answer = answer_to(frame if isinstance(frame, bytes) else encoded(frame), echo)
    assert answer.reply is None
    assert answer.refusal is not None
    return answer.refusal


def test_a_good_request_is_answered() -> None:
    assert answer_to(GOOD, echo) == wire.Answer(reply={})
    assert answer_to(encoded(START), echo).refusal is None


@pytest.mark.parametrize(
    "frame",
    [
        b"", b"{", b"null", b"[]", b"1", b'"inspect"', b"\xff\xfe", b"\x00" * 100, b"[" * 10_000,
        b'{"op": "nope"}', b'{"op": 1}', b'{"op": "inspect", "extra": 1}', b'{"op": "create_upload"}',
        b'{"op": "create_upload", "image_id": "1"}', b'{"op": "create_upload", "image_id": true}',
        b'{"op": "create_upload", "image_id": 1.0}', b'{"op": "create_upload", "image_id": 0}',
        b'{"op": "create_upload", "image_id": -1}', b'{"op": "create_upload", "image_id": 67108864}',
        b'{"op": "create_upload", "image_id": 1e9}', b'{"op": "create_upload", "image_id": null}',
        b'{"op": "create_upload", "image_id": [1]}', b'{"op": "create_upload", "image_id": "../1"}',
        GOOD + GOOD, GOOD + b"x",
    ],
)  # fmt: skip
def test_requests_that_violate_the_contract_are_refused(frame: bytes) -> None:
    of_our_protocol = frame.replace(b'{"op"', b'{"protocol": %d, "op"' % wire.PROTOCOL)
    assert refusal(of_our_protocol).code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    "frame",
    [
        b"{}",
        b'{"op": "inspect"}',
        b'{"protocol": 1, "op": "inspect"}',
        b'{"protocol": %d, "op": "inspect"}' % (wire.PROTOCOL + 1),
        b'{"protocol": %d, "op": "from the future", "more": {}}' % (wire.PROTOCOL + 1),
    ],
)
def test_a_request_of_another_protocol_is_refused_as_such(frame: bytes) -> None:
    refused = refusal(frame)
    assert refused.code is ErrorCode.OTHER_PROTOCOL
    assert "systemctl restart draupnir-helper draupnir" in refused.detail


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("owner", ""), ("owner", "a b"), ("owner", "x" * 255), ("owner", "a\n"), ("owner", "%n"), ("owner", "../x"),
        ("port", 80), ("port", 65536), ("postgres_major", 9), ("postgres_major", 100), ("loopback_only", 1),
        ("sleep_after_s", -1), ("sleep_after_s", True), ("direct", 0), ("superuser", 1), ("new", 1),
        ("created_at", "2026-01-02T03:04:05"),
        ("server_key", "x"), ("server_key", PEM + "x"), ("server_key", PEM.rstrip()), ("server_key", PEM * 400),
        ("server_key", PEM.replace("QUJD", "Q\0JD")), ("instance_id", 2**31),
    ],
)  # fmt: skip
def test_a_value_outside_its_type_is_refused(key: str, value: object) -> None:
    assert refusal(START | {key: value}).code is ErrorCode.BAD_REQUEST


def test_nothing_that_was_sent_is_quoted_back() -> None:
    assert "canary" not in refusal({"op": "create_upload", "image_id": "canary"}).detail


def test_an_oversized_frame_is_refused() -> None:
    assert "larger" in refusal(b" " * (wire.MAX_REQUEST_BYTES + 1)).detail


def test_failures_come_back_as_codes_without_internals() -> None:
    assert refusal({"op": "destroy_image", "image_id": 1}).code is ErrorCode.IN_USE
    assert refusal({"op": "create_upload", "image_id": 28}).code is ErrorCode.NO_ROOM
    internal = refusal({"op": "create_upload", "image_id": 13})
    assert internal.code is ErrorCode.INTERNAL
    assert "secret" not in internal.detail


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_every_frame_gets_a_valid_answer(frame: bytes) -> None:
    answer = answer_to(frame, echo)
    assert (answer.reply is None) != (answer.refusal is None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from([*START, "parts", "kind", "anonymisation_script", "backed_up_at"])
OPS = st.sampled_from([*(kind.model_fields["op"].default for kind in wire.REQUESTS), "x"])


@settings(max_examples=500, deadline=None)
@given(OPS, st.dictionaries(KEYS, JSON, max_size=8))
def test_no_shape_of_a_known_request_escapes_the_contract(op: str, values: dict[str, object]) -> None:
    answer = answer_to(encoded(values | {"op": op}), echo)
    assert (answer.reply is None) != (answer.refusal is None)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "helper.sock"))
    listening.listen()
    with listening:
        yield listening
        # Wakes accept(), which a close does not.
        if listening.fileno() != -1:
            listening.shutdown(socket.SHUT_RDWR)


def served(listener: socket.socket, uids: set[int]) -> threading.Thread:
    def serve() -> None:
        try:
            server.serve(listener, echo, uids)
        except OSError:
            return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def ask(listener: socket.socket, frame: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(listener.getsockname())
        try:
            connection.sendall(frame)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except (BrokenPipeError, ConnectionResetError):
            return b""


def test_a_foreign_uid_is_disconnected_without_an_answer(listener: socket.socket) -> None:
    served(listener, {os.getuid() + 1})
    assert ask(listener, GOOD) == b""


def test_the_allowed_uid_is_answered(listener: socket.socket) -> None:
    served(listener, {os.getuid()})
    assert json.loads(ask(listener, GOOD)) == {"reply": {}}


def test_silent_callers_do_not_hold_up_the_next_one(listener: socket.socket) -> None:
    served(listener, {os.getuid()})
    silent = [socket.socket(socket.AF_UNIX) for _ in range(server.THREADS - 1)]
    try:
        for connection in silent:
            connection.connect(listener.getsockname())
        assert json.loads(ask(listener, GOOD)) == {"reply": {}}
    finally:
        for connection in silent:
            connection.close()


def test_a_uid_above_two_billion_is_read_correctly(listener: socket.socket) -> None:
    """struct ucred has unsigned ids; read as signed, a high uid would be negative."""

    class Peer:
        def getsockopt(self, *_: int) -> bytes:
            return struct.pack("=iII", 1, 2**31 + 1, 0)

    assert server.peer_uid(Peer()) == 2**31 + 1  # type: ignore[arg-type]
