"""The libraries that the server of an image preloads: those of the operator, and allowed ones that the data need.

The extract job leaves the list of the source in postgresql.auto.conf, where the finalise job finds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from draupnir_helper import postgres
from draupnir_helper.jobs import configurations, preflight
from draupnir_helper.jobs.rows import Rows

_MAX_LIBRARIES = 20
_NAME = re.compile(r"(?:\$libdir/)?([a-z0-9_-]{1,63})(?:\.so)?", re.ASCII)


def listed(value: str) -> list[str]:
    """Return the names in a value of shared_preload_libraries; leave out paths and names of more than one form."""
    parts = (part.strip().strip('"').strip() for part in value.split(","))
    return [found[1] for part in parts if (found := _NAME.fullmatch(part))][:_MAX_LIBRARIES]


class Preloads:
    """The libraries of one image; `source` are those of its own configuration, which the operator may not allow."""

    def __init__(self, major: int, directory: Path, order: Mapping[str, Any]) -> None:
        self._major = major
        self._allowed: Sequence[str] = order["allowed_preload_libraries"]
        self._of_operator: Sequence[str] = order["shared_preload_libraries"]
        settings = configurations.read(directory / configurations.FILES[-1])
        self._source = listed(settings.get(configurations.PRELOAD, ""))
        self.allowed = self._permitted(self._source)

    @property
    def libraries(self) -> list[str]:
        """Return every library that the server preloads."""
        return list(dict.fromkeys([*self._of_operator, *self.allowed]))

    def required(self, rows: Rows) -> list[str]:
        """Return every library for the first start. Raises preflight_failed if one of the operator's is missing."""
        preflight.refuse(preflight.listed(self._major, self._of_operator), rows)
        return self.libraries

    def add(self, needs: Iterable[preflight.Need]) -> bool:
        """Add the allowed libraries that extensions of the data need; return whether there are any."""
        needed = [need.name for need in needs if need.kind == "extension" and need.name in preflight.PRELOADED]
        more = [name for name in self._permitted(needed) if name not in self.libraries]
        self.allowed += more
        return bool(more)

    def report(self, rows: Rows) -> None:
        """Add a row for each library that only the source preloads, unless an extension of it has one."""
        for name in self._source:
            if name in self.libraries or any(row.object == name for row in rows):
                continue
            missing = preflight.missing_library(self._major, name)
            remedy = missing or preflight.allowing(name)
            rows.add("library_not_preloaded", "Instances do not preload this library.", object=name, remedy=remedy)

    def _permitted(self, names: Iterable[str]) -> list[str]:
        installed = (name for name in names if postgres.library(self._major, name).exists())
        return [name for name in dict.fromkeys(installed) if name in self._allowed]
