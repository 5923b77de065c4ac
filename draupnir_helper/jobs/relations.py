"""Names the relation of a file in the data directory."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from draupnir_helper.jobs.clusters import Cluster
from draupnir_helper.jobs.sessions import in_each

_LISTING = Path(__file__).with_name("sql") / "relations.sql"
_FILE = re.compile(r"(?:.*/)?(global|[0-9]+)/([0-9]+)(?:_[a-z]+)?(?:\.[0-9]+)?", re.ASCII)
_SHARED = 0


class Relation(NamedTuple):
    """A relation, and the table that it belongs to: that of an index, or the one whose values a TOAST table has."""

    database: str
    name: str
    table: int


Relations = Mapping[tuple[int, int], Relation]  # by oid of the database, or 0, and filenode


def read(cluster: Cluster, databases: Mapping[str, int]) -> Relations:
    """Return all relations that have files."""
    found = in_each(databases, lambda database: cluster.run_files(database, _LISTING))
    return {
        (_SHARED if each["shared"] else oid, each["filenode"]): Relation(database, each["name"], each["table"])
        for (database, oid), lines in zip(databases.items(), found, strict=True)
        for each in map(json.loads, filter(None, lines))
    }


def of_path(relations: Relations, path: str) -> Relation | None:
    """Return the relation of a file, whose path is relative to the data directory."""
    if (found := _FILE.fullmatch(path)) is None:
        return None
    return relations.get((_SHARED if found[1] == "global" else int(found[1]), int(found[2])))


def described(relations: Relations, path: str) -> str:
    """Return a file with its relation for a message."""
    relation = of_path(relations, path)
    return f"{relation.name} in database {relation.database} ({path})" if relation else path
