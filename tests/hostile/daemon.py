"""A compromised daemon: frames and requests that its uid could send to the helper."""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from draupnir_helper.wire import MAX_ID, MAX_REQUEST_BYTES, MIN_MAX_BYTES, PROTOCOL, SOCKET_PATH

JSON = dict[str, Any]
# High ids, which are unused.
FREE_ID = MAX_ID - 100
PEM = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"


@contextmanager
def connected(timeout_s: float = 120) -> Iterator[socket.socket]:
    """Open a connection to the helper as the daemon's user."""
    user = pwd.getpwnam("draupnir")
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(timeout_s)
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        client.connect(SOCKET_PATH)
    finally:
        os.seteuid(0)
        os.setegid(0)
    with client:
        yield client


def say(client: socket.socket, frame: bytes) -> JSON | None:
    """Send the whole frame and return the answer, or None if the helper closed the connection."""
    try:
        client.sendall(frame)
        client.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        return None
    answer = b""
    try:
        while chunk := client.recv(65536):
            answer += chunk
    except ConnectionResetError:
        return None
    found: JSON = json.loads(answer)
    return found


def encoded(request: JSON) -> bytes:
    """Return the frame of a request in the helper's own protocol."""
    return json.dumps({"protocol": PROTOCOL} | request).encode()


def ask(request: JSON | bytes) -> JSON | None:
    """Return one request, or one frame that claims to be one."""
    with connected() as client:
        return say(client, request if isinstance(request, bytes) else encoded(request))


def code_of(answer: JSON | None) -> str:
    """Return the code of a refusal, an empty text for a reply, or `hung up` for a closed connection."""
    if answer is None:
        return "hung up"
    refusal: JSON = answer.get("refusal") or {}
    return str(refusal.get("code", ""))


def start(**changed: object) -> JSON:
    """Return a normal request for an instance, with changed fields."""
    return {
        "op": "start_instance", "instance_id": FREE_ID, "image_id": FREE_ID, "owner": "a@b.example", "port": 8000,
        "postgres_major": 17, "created_at": "2026-01-02T03:04:05Z", "new": True, "loopback_only": False,
        "addresses": None, "sleep_after_s": 1800, "direct": False, "superuser": False,
        "ceiling": {"max_bytes": MIN_MAX_BYTES, "read_only": False, "extended": False},
        "parameters": {}, "authority_certificate": PEM, "server_certificate": PEM, "server_key": PEM,
    } | changed  # fmt: skip


def _image(image_id: object, **more: object) -> JSON:
    return {"op": "create_upload", "image_id": image_id} | more


_UPLOAD_OF = b'{"protocol": %d, "op": "create_upload", "image_id": ' % PROTOCOL

# JSON objects that are not requests.
MISFITS: dict[str, JSON] = {
    "no operation": {},
    "an unknown operation": {"op": "run", "command": "id"},
    "an operation that is a list": {"op": ["inspect"]},
    "a shell in the operation": {"op": "inspect; id"},
    "a dunder": {"op": "__class__"},
    "a key too many": {"op": "inspect", "path": "/etc"},
    "a unit": _image(1, unit="ssh.service"),
    "an environment": _image(1, environment={"LD_PRELOAD": "/tmp/x.so"}),
    "id 0": _image(0),
    "id -1": _image(-1),
    "an id too large": _image(MAX_ID + 1),
    "an id of 64 bits": _image(2**64),
    "an id as text": _image("1"),
    "an id as a fraction": _image(1.0),
    "an id as a truth": _image(True),
    "an id that climbs": _image("../../etc"),
    "ids": _image([1, 2]),
    "no id": {"op": "create_upload"},
    "a job of another kind": {"op": "inspect_job", "kind": "../instance", "image_id": 1},
    "a part of another name": {"op": "discard_parts", "image_id": 1, "parts": ["../instances"]},
    "many parts": {"op": "discard_parts", "image_id": 1, "parts": ["seal"] * 5},
    "a script too long": {
        "op": "start_finalise", "image_id": 1, "postgres_major": 17, "anonymisation_script": "x" * 1_048_577,
        "carried_over": {}, "given": {}, "canaries": [], "keep_residue": False,
    },
    "port 22": start(port=22),
    "port 65536": start(port=65536),
    "a port as text": start(port="6432"),
    "an owner with a line feed": start(owner="a\nExecStart=/bin/sh"),
    "an owner with a specifier": start(owner="%n"),
    "an owner that climbs": start(owner="../../x"),
    "an owner of 255 characters": start(owner="x" * 255),
    "an owner of other digits": start(owner="x٣"),
    "a negative time to sleep": start(sleep_after_s=-1),
    "a century of sleep": start(sleep_after_s=10**9),
    "Postgres 9": start(postgres_major=9),
    "Postgres 1000": start(postgres_major=1000),
    "a time without a zone": start(created_at="2026-01-02T03:04:05"),
    "a time that is none": start(created_at="yesterday"),
    "too many addresses": start(addresses=["10.0.0.0/8"] * 65),
    "addresses with host bits": start(addresses=["10.0.0.1/8"]),
    "an address that is a name": start(addresses=["localhost"]),
    "no PEM": start(server_key="AAAA"),
    "an empty PEM": start(server_key=""),
    "a PEM with a directive": start(server_key="-----BEGIN X-----\narchive_command=id\n-----END X-----\n"),
    "a PEM with a NUL": start(server_key=PEM + "\x00"),
    "a PEM with more behind": start(server_key=PEM + "include '/etc/passwd'\n"),
    "a PEM too long": start(authority_certificate=PEM * 300),
    "a PEM without an end": start(server_certificate=PEM[:-10]),
}  # fmt: skip

# Each is refused before anything is done.
FRAMES: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \n" * 1000,
    "half an object": b'{"op": "inspect"',
    "two objects": b'{"op": "inspect"}{"op": "inspect"}',
    "an object and more": b'{"op": "inspect"} x',
    "null": b"null",
    "a list": b'[{"op": "inspect"}]',
    "a string": b'"inspect"',
    "NULs": b"\x00" * 4096,
    "another encoding": '{"op": "inspect"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"op": 1}',
    "no UTF-8": _UPLOAD_OF + b'"\xff\xfe"}',
    "a lone surrogate": _UPLOAD_OF + b'"\\ud800"}',
    "depth": b"[" * 200_000,
    "depth in an object": b'{"op":' * 50_000 + b"1" + b"}" * 50_000,
    "one byte too many": b" " * (MAX_REQUEST_BYTES - 16) + b'{"op":"inspect"} ',
    "a number of a million digits": _UPLOAD_OF + b'' + b"9" * 1_000_000 + b"}",
    "a number that is none": _UPLOAD_OF + b'NaN}',
    "infinity": _UPLOAD_OF + b'Infinity}',
    "a thousand keys": encoded({f"k{n}": n for n in range(1000)}),
    **{name: encoded(request) for name, request in MISFITS.items()},
}  # fmt: skip

# Valid requests for something that does not exist, is not ready, or is not allowed.
OUT_OF_ORDER: dict[str, tuple[JSON, set[str]]] = {
    "seal what was never made": ({"op": "seal_upload", "image_id": FREE_ID}, {"not_found"}),
    "extract what was never sealed": ({"op": "start_extract", "image_id": FREE_ID}, {"not_found"}),
    "finalise what was never extracted": (
        {
            "op": "start_finalise", "image_id": FREE_ID, "postgres_major": 17, "anonymisation_script": "",
            "carried_over": {}, "given": {}, "canaries": [], "keep_residue": False,
        },
        {"wrong_state"},
    ),
    "publish what was never finalised": (
        {
            "op": "publish_image", "image_id": FREE_ID, "postgres_major": 17, "backed_up_at": "2026-01-02T03:04:05Z",
            "created_at": "2026-01-02T03:04:05Z",
        },
        {"wrong_state"},
    ),
    "an instance of no image": (start(), {"not_found"}),
    "an instance that is not new and not there": (start(new=False), {"not_found"}),
    "the port of ssh's neighbour": (start(port=1024), {"not_found", "port_out_of_range"}),
    "the port of the API": (start(port=8432), {"not_found", "port_out_of_range"}),
    "a major that is not installed": (start(postgres_major=12), {"not_found", "postgres_missing"}),
}  # fmt: skip
