"""Reads the lines of a script that say on purpose: this column keeps values that the script removes from another one.

The line is `-- draupnir: keeps DATABASE.SCHEMA.TABLE.COLUMN`. Names are as in SQL: quoted, or in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from draupnir_helper.jobs.reports import JobError

_LINE = re.compile(r"\s*--\s*draupnir:\s*(.*?)\s*")
_NAME = r'"(?:[^"]|"")+"|[^".\s]+'
_KEEPS = re.compile(rf"keeps\s+({_NAME})\.({_NAME})\.({_NAME})\.({_NAME})")


class Place(NamedTuple):
    """A column of a database; the names are not quoted."""

    database: str
    schema: str
    table: str
    column: str

    def __str__(self) -> str:
        return ".".join(_quoted(name) for name in self)


def read(script: str) -> list[Place]:
    """Return the declared columns. Raises script_failed for a line that Draupnir does not understand."""
    found = []
    for number, text in enumerate(script.splitlines(), 1):
        if (line := _LINE.fullmatch(text)) is None:
            continue
        if (keeps := _KEEPS.fullmatch(line[1])) is None:
            detail = (
                f"Line {number} of the anonymisation script is not a valid declaration. Write `-- draupnir: keeps "
                "DATABASE.SCHEMA.TABLE.COLUMN`, and finalise again."
            )
            raise JobError("script_failed", detail)
        found.append(Place(*(_unquoted(name) for name in keeps.groups())))
    return found


def require_existing(declared: Iterable[Place], existing: Iterable[Place]) -> None:
    """Raises script_failed if a declared column does not exist after the script."""
    if missing := [str(place) for place in sorted({*declared} - {*existing})]:
        detail = (
            f"The anonymisation script declares that {missing[0]} keeps values, but no table has this column after the "
            "script. Correct the line, and finalise again."
        )
        raise JobError("script_failed", detail)


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'
