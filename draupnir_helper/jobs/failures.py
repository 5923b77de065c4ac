"""The public part of an error of psql or the server: SQLSTATE, condition name and line, never its text.

A message or DETAIL of Postgres can quote a raw row, so public sentences contain neither.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_SHARED = Path("/usr/share/postgresql")
# psql with VERBOSITY=verbose, and the server's log with log_line_prefix = '%e '.
_OF_PSQL = re.compile(
    r"^psql:(?P<file>[^:\n]*):(?P<line>\d+): (?:ERROR|FATAL|PANIC):  (?P<state>[0-9A-Z]{5}): ", re.MULTILINE
)
_OF_SERVER = re.compile(r"^(?P<state>[0-9A-Z]{5}) (?:FATAL|PANIC):  ", re.MULTILINE)
_WITHOUT_STATE = re.compile(r"^psql:(?P<file>[^:\n]*):(?P<line>\d+): (?:error|ERROR|FATAL|PANIC): ", re.MULTILINE)
_NO_SPACE = ("No space left on device", "Disk quota exceeded")


def of_script(major: int, script: Path, stderr: str) -> str:
    """Return where and why the script failed, as psql reported it."""
    lines = script.read_text(encoding="utf-8").count("\n") + 1
    for pattern in (_OF_PSQL, _WITHOUT_STATE):
        for found in pattern.finditer(stderr):
            line = int(found["line"][:9])
            if found["file"] == script.name and 1 <= line <= lines:
                state = found.groupdict().get("state")
                why = described(major, state) if state else "psql could not execute this line"
                return f"{script.name}:{line}: {why}"
    return f"{script.name}: psql ended without naming a line"


def of_statement(major: int, stderr: str) -> str:
    """Return why a statement of our own failed."""
    found = _OF_PSQL.search(stderr)
    return described(major, found["state"]) if found else "the server gave no SQLSTATE"


def by_line(stderr: str) -> dict[str, dict[int, str]]:
    """Return the SQLSTATEs of failed statements, by file and line."""
    failed: dict[str, dict[int, str]] = {}
    for found in _OF_PSQL.finditer(stderr):
        failed.setdefault(found["file"], {})[int(found["line"])] = found["state"]
    return failed


def of_server(major: int, log: str) -> str:
    """Return why the server ended, from the last fatal line of its log."""
    found = _OF_SERVER.findall(log)
    return described(major, found[-1]) if found else "the server gave no SQLSTATE"


def described(major: int, state: str) -> str:
    """Return the SQLSTATE with its condition name. Hide an undefined SQLSTATE, because it may contain data."""
    name = conditions(major).get(state)
    return f"SQLSTATE {state} ({name})" if name else "a SQLSTATE that Postgres does not define"


@cache
def conditions(major: int) -> dict[str, str]:
    """Return SQLSTATE → condition name, from the list that each Postgres installs."""
    text = (_SHARED / str(major) / "errcodes.txt").read_text(encoding="ascii")
    rows = (line.split() for line in text.splitlines() if re.match(r"[0-9A-Z]{5} +E ", line))
    return {row[0]: row[3] for row in rows if len(row) == 4}


def out_of_room(text: str) -> bool:
    """Return whether the text reports a full disk or a full quota."""
    return any(words in text for words in _NO_SPACE)
