"""Reads a request's body: bounded in size and time, UTF-8, strict JSON, and one object."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import NoReturn

from starlette.requests import Request

from draupnir import errors

# Parsing a body blocks all other requests, and the received part of a slow body takes memory.
MAX_BODY_BYTES = 64 * 1024
MAX_SCRIPT_BODY_BYTES = 1024 * 1024
MAX_DIGITS = 100
BODY_TIMEOUT_S = 30.0

_BAD_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)


class InvalidJson(errors.InvalidRequest):
    """The body is not one JSON object."""

    code = "invalid_json"
    title = "Invalid JSON"


class BodyTooLarge(errors.DraupnirError):
    """The body exceeds the route's limit."""

    code = "body_too_large"
    title = "Body too large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The body is longer than {max_bytes} bytes; send a shorter one.")


class BodyTooSlow(errors.DraupnirError):
    """The body did not arrive within BODY_TIMEOUT_S."""

    code = "body_too_slow"
    title = "Body too slow"

    def __init__(self) -> None:
        super().__init__(f"The body did not arrive within {BODY_TIMEOUT_S:.0f} seconds; send the request again.")


async def read_document(
    request: Request, absent: dict[str, object] | None = None, max_bytes: int = MAX_BODY_BYTES
) -> dict[str, object]:
    """Read the body as a JSON object; `absent` if it is empty. Raises InvalidJson, BodyTooLarge or BodyTooSlow."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await _read_bytes(request, max_bytes)
    except TimeoutError as error:
        raise BodyTooSlow from error
    if absent is not None and not body.strip():
        return absent
    return parse_document(body)


async def _read_bytes(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise BodyTooLarge(max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLarge(max_bytes)
    return bytes(body)


def parse_document(body: bytes) -> dict[str, object]:
    """Parse the bytes as a JSON object. Raises InvalidJson with position, reason and correction."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidJson(
            f"The body is not UTF-8: byte {error.start + 1} is 0x{body[error.start]:02x}; send the JSON in UTF-8."
        ) from error
    if not text.strip():
        raise InvalidJson('The body is empty; send a JSON object such as {"data": {"attributes": {}}}.')
    try:
        document = json.loads(
            text,
            object_pairs_hook=_unique_members,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_short_integer,
        )
    except json.JSONDecodeError as error:
        raise InvalidJson(_explain(text, error)) from error
    except RecursionError as error:
        raise InvalidJson("The JSON is nested too deeply; send flat attributes.") from error
    if not isinstance(document, dict):
        raise InvalidJson('The JSON is not an object; send one such as {"data": {"attributes": {}}}.')
    return document


def _explain(text: str, error: json.JSONDecodeError) -> str:
    where = f"line {error.lineno}, column {error.colno}"
    escape = _BAD_ESCAPE.match(text, error.pos)
    if error.msg.startswith("Invalid \\escape") and escape:
        found = json.dumps(escape.group(1), ensure_ascii=True)[1:-1]
        return (
            f"The JSON has an illegal escape \\{found} at {where}: in JSON a backslash is written twice, "
            f"so write \\\\{found} where the text should have \\{found}."
        )
    if error.msg.startswith("Invalid control character"):
        return (
            f"The JSON has an unescaped control character in a string at {where}: "
            "write \\n for a line end and \\t for a tab."
        )
    reason = error.msg[:1].lower() + error.msg[1:].removesuffix(":").rstrip()
    return f"The body is not JSON at {where}: {reason}; correct it there and send it again."


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in members:
            raise InvalidJson(f"The JSON names {quote(name)} twice in one object; name it once.")
        members[name] = value
    return members


def _refuse_constant(word: str) -> NoReturn:
    raise InvalidJson(f"The JSON contains {word}, which JSON does not have; write a number or null.")


def _short_integer(digits: str) -> int:
    # The conversion takes quadratic time, and Python raises ValueError for more than 4,300 digits.
    if len(digits) > MAX_DIGITS:
        raise InvalidJson("The JSON contains a number with too many digits; write a shorter one.")
    return int(digits)


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InvalidJson(f"The JSON contains the number {digits[:40]}, which is too large; write a smaller one.")
    return number


def quote(value: object) -> str:
    """Format the value as short ASCII JSON, safe to quote in an answer or a log line."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
