"""Which tables the triggers of the data wrote to while the script ran: they may keep what the script changed.

Production's audit triggers write old rows into log tables. Triggers are not switched off, since the cascades of foreign
keys are triggers, too. So the tables are named: those that were written to though the script does not name them, and
those that the function of a trigger names that fired.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from draupnir_helper.notify import escape

MAX_TABLES = 40
MAX_NAME_CHARS = 120
_MAX_BYTES = 3000  # of all names, as the job's status carries them
TRACKING = "-c track_functions=all"  # for the script's session


def tables(lines: Iterable[str], script: str) -> list[str]:
    """Of the lines that written.sql returned, the names of tables that not the script alone wrote to."""
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
