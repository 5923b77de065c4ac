"""Collects the rows of an image's report: what a job found, changed, dropped or could not do, with remedies.

The extract job leaves its rows in the work directory, and the finalise job adds its own. Code of the data can write to
that directory while the server runs, so the finalise job keeps the rows in memory until the server has stopped.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from draupnir_helper.report_codes import CODES

NAME = ".draupnir-report"
MAX_ROWS = 1000
MAX_BYTES = 1024 * 1024
_LONGEST = 500
_SURROGATE = re.compile("[\udc80-\udcff]")


class Row(NamedTuple):
    """One row: a code of report_codes.py, a sentence, the database and object if there are any, and what to do."""

    code: str
    detail: str
    database: str = ""
    object: str = ""
    remedy: str = ""


class Rows:
    """The rows of a report, at first those that an earlier job left in the directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._rows: list[Row] = []
        # An uploaded file that is not a report is ignored.
        with suppress(OSError, ValueError, TypeError):
            self._rows = [Row(**row) for row in json.loads(self._path.read_text(encoding="utf-8"))]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def add(self, code: str, detail: str, *, database: str = "", object: str = "", remedy: str = "") -> Row:  # noqa: A002 - the name in the API
        """Add a row, unless the report has it already or is full; return it."""
        assert code in CODES, code
        row = Row(*(_shortened(text) for text in (code, detail, database, object, remedy)))
        if row not in self._rows and len(self._rows) < MAX_ROWS:
            self._rows.append(row)
        return row

    def lead(self, code: str, detail: str, *, remedy: str = "") -> None:
        """Make this the first row."""
        row = self.add(code, detail, remedy=remedy)
        self._rows = [row, *(each for each in self._rows if each != row)]

    def withdraw(self, row: Row) -> None:
        """Remove a row that is no longer true."""
        self._rows = [each for each in self._rows if each != row]

    def leave(self) -> None:
        """Write the rows to the work directory; do nothing if the disk is full."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o660)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.document())

    def document(self) -> bytes:
        """Return as many rows as fit into the maximum size, as JSON."""
        rows = list(self._rows)
        while len(text := json.dumps([row._asdict() for row in rows]).encode()) > MAX_BYTES:
            del rows[-(len(rows) // 10 + 1) :]
        return text


def _shortened(text: str) -> str:
    text = text[: _LONGEST + 1]
    # Names may have bytes that are not UTF-8.
    text = _SURROGATE.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", text).encode(errors="replace").decode()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
