"""Turns values of a database into the bytes that their files contain, if these are evidence: long and distinct."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path

_PAGE_BYTES = 8192
_SEGMENT_PAGES = 131072
_PAGE_HEADER_BYTES = 24
_NORMAL = 1  # state of a line pointer
_LEAST_BYTES = 8
_MOST_BYTES = 2000  # a longer value may be in several pieces
_LONG_BYTES = 24
_LEAST_CHARACTERS = 5  # different ones
_DIGITS = 4  # of a numeric are in two bytes
_LEAST_NUMERIC_BYTES = 8
# Words and dates occur by accident: labels, names of columns, days.
_WORD = re.compile(rb"[A-Za-z_-]+")
_DATE = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9:.+-]+Z?)?")
_NOT_UTF_8 = re.compile("[\n\r\udc80-\udcff]+")
_WINDOW_BYTES = 48


def of_value(kind: str, value: bytes) -> bytes | None:
    """Return the bytes of a value as Postgres stores it, or None if the value could be there by accident.

    `kind` and `value` come from columns.sql and originals.py: bytes in hexadecimal, other values as their text.
    """
    if kind == "bytes":
        stored = bytes.fromhex(value.decode())
    elif kind == "uuid":
        stored = uuid.UUID(value.decode()).bytes
    elif kind == "numeric":
        stored = _numeric(value.decode())
    else:
        stored = value
        if len(stored) < _LONG_BYTES and (_WORD.fullmatch(stored) or _DATE.fullmatch(stored)):
            return None
    is_evidence = _LEAST_BYTES <= len(stored) <= _MOST_BYTES and len(set(stored)) >= _LEAST_CHARACTERS
    return stored if is_evidence else None


def window(needle: bytes) -> bytes:
    """Return the part of a needle to search for: the end of its longest piece in UTF-8, or else of any bytes.

    The searcher reads its patterns as lines. Ends of values differ more than their beginnings. Empty if all pieces are
    short.
    """
    pieces = [piece.encode() for piece in _NOT_UTF_8.split(needle.decode(errors="surrogateescape"))]
    for each in (max(pieces, key=len), max(needle.split(b"\n"), key=len)):
        if len(each) >= _LEAST_BYTES and len(set(each)) >= _LEAST_CHARACTERS:
            return each[-_WINDOW_BYTES:]
    return b""


def compressed(paths: Sequence[Path], page: int, item: int, size_bytes: int) -> bytes | None:
    """Return the stored bytes of a value of this size in the row, if it is compressed in the row itself.

    `paths` are the files of the table. The layout is in storage/bufpage.h and varatt.h: the two low bits of the first
    word of a compressed value are 10, the others are its size; the second word is the size of the raw value.
    """
    number, within = divmod(page, _SEGMENT_PAGES)
    path = next((each for each in paths if each.suffix == (f".{number}" if number else "")), None)
    if path is None:
        return None
    with path.open("rb", buffering=0) as file:
        content = os.pread(file.fileno(), _PAGE_BYTES, within * _PAGE_BYTES)
    pointer = int.from_bytes(content[(at := _PAGE_HEADER_BYTES + 4 * (item - 1)) : at + 4], "little")
    if pointer >> 15 & 3 != _NORMAL:
        return None
    row = content[(start := pointer & 0x7FFF) : start + (pointer >> 17)]
    at = row.find(head := (size_bytes << 2 | 2).to_bytes(4, "little"))
    while at >= 0:
        raw_bytes = int.from_bytes(row[at + 4 : at + 8], "little") & 0x3FFFFFFF
        if at % 4 == 0 and raw_bytes > size_bytes and at + size_bytes <= len(row):
            return row[at + 8 : at + size_bytes]
        at = row.find(head, at + 1)
    return None


def _numeric(text: str) -> bytes:
    """Return the digits of a numeric as Postgres stores them, without its head; empty for a short one."""
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text):
        return b""
    whole, _, fraction = text.removeprefix("-").partition(".")
    digits = whole.rjust(-(-len(whole) // _DIGITS) * _DIGITS, "0")
    digits += fraction.ljust(-(-len(fraction) // _DIGITS) * _DIGITS, "0")
    groups = [int(digits[at : at + _DIGITS]) for at in range(0, len(digits), _DIGITS)]
    while groups and not groups[0]:
        del groups[0]
    while groups and not groups[-1]:
        del groups[-1]
    stored = b"".join(group.to_bytes(2, "little") for group in groups)
    return stored if len(stored) >= _LEAST_NUMERIC_BYTES else b""
