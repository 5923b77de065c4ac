"""The catalogs as initdb of a major version creates them, from its postgres.bki: columns in order, and first rows."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

_SHARED = Path("/usr/share/postgresql")
_VALUES = re.compile(r"""'((?:[^']|'')*)'|"([^"]*)"|(\S+)""")


class Catalog(NamedTuple):
    """One catalog: its oid, (name, type) of each column, and the rows as text, one value for each column."""

    oid: int
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]

    def position(self, name: str) -> int:
        """Return the index of the column in a row."""
        return [column for column, _ in self.columns].index(name)


def system_scripts(major: int) -> list[str]:
    """Return the SQL that initdb of that major runs after it has created the catalogs."""
    return [path.read_text(encoding="utf-8") for path in sorted((_SHARED / str(major)).glob("system_*.sql"))]


@cache
def catalog(major: int, name: str) -> Catalog:
    """Return the catalog of that name. Raises ValueError if the major does not have it."""
    text = (_SHARED / str(major) / "postgres.bki").read_text(encoding="utf-8")
    found = re.search(rf"^create {name} (\d+).*?\n \(\n(.*?)\n \)\n(.*?)^close {name}$", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(name)
    columns = re.findall(r"^ (\w+) = (\w+)", found[2], re.MULTILINE)
    rows = re.findall(r"^insert \( (.*) \)$", found[3], re.MULTILINE)
    return Catalog(
        int(found[1]), tuple(columns), tuple(tuple("".join(parts) for parts in _VALUES.findall(row)) for row in rows)
    )
