"""Finds tables that triggers wrote to during the script, because they may retain data that the script changed.

Production's audit triggers write old rows into log tables. Triggers stay enabled, because the cascades of foreign keys
are triggers, too. The image lists two kinds of tables instead: those that were written to although the script does not
name them, and those that the function of a fired trigger names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from draupnir_helper.notify import escape

MAX_TABLES = 40
MAX_NAME_CHARS = 120
_MAX_BYTES = 2500  # of all names, as the job's status carries them
TRACKING = "-c track_functions=all"  # for the script's session


def tables(lines: Iterable[str], script: str) -> list[str]:
    """Return the names of tables in the output of written.sql that were not written by the script alone."""
    words = set(re.findall(r"\w+", script.lower()))
    found: list[str] = []
    for line in lines:
        name, by_function, table = json.loads(line)
        named = table.lower() in words or (re.search(r"\W", table) and table.lower() in script.lower())
        if by_function or not named:
            found.append(_printable(name)[:MAX_NAME_CHARS])
    while len(found) > MAX_TABLES or len(escape(json.dumps(found, ensure_ascii=False)).encode()) > _MAX_BYTES:
        found.pop()
    return found


def _printable(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name)
