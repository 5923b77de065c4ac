"""Surveys each database before the script changes it: materialized views, statistics and collations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from draupnir_helper.jobs import collations, vacuum
from draupnir_helper.jobs.clusters import Cluster
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.sessions import in_each

_SQL = Path(__file__).with_name("sql")
_EMPTIED = "Refreshing the materialized view failed, so it is empty in the image."
_REFRESH = "Refresh the view in the script, with the settings that its query needs, or in an instance."


class Survey(NamedTuple):
    """The result. The first two fields are Postgres arrays, by oid of the database; empty ones are omitted."""

    filled: dict[int, str]  # the filenodes of materialized views with data
    parents: dict[int, str]  # the partitioned tables with statistics
    dependent: dict[str, list[str]]  # the lines of collations.sql, by name of the database


def survey(cluster: Cluster, databases: Mapping[str, int]) -> Survey:
    """Survey all databases, with one session in each."""
    files = (_SQL / "materialized_views.sql", vacuum.PARENTS, collations.LISTING)
    found = in_each(databases, lambda database: cluster.run_files(database, *files))
    return Survey(
        {oid: lines[0] for oid, lines in zip(databases.values(), found, strict=True) if lines[0]},
        {oid: lines[1] for oid, lines in zip(databases.values(), found, strict=True) if lines[1]},
        {name: lines[2:] for name, lines in zip(databases, found, strict=True)},
    )


def refresh(cluster: Cluster, databases: Mapping[str, int], before: Survey, rows: Rows) -> None:
    """Refresh the materialized views that still contain rows from before the script; report those that fail."""
    file = _SQL / "refresh.sql"
    stale = [database for database, oid in databases.items() if oid in before.filled]
    listed = in_each(
        stale, lambda database: cluster.run_files(database, file, filenodes=before.filled[databases[database]])
    )
    for database, lines in zip(stale, listed, strict=True):
        for name in map(json.loads, filter(None, lines)):
            rows.add("materialized_view_emptied", _EMPTIED, database=database, object=name, remedy=_REFRESH)
