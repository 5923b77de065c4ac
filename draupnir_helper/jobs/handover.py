"""Hands over the data: draupnir gets the objects of the superuser and joins all roles, which are limited to SQL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from draupnir_helper import postgres
from draupnir_helper.jobs import catalogs, changes, inspections
from draupnir_helper.jobs.clusters import Cluster, array
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.sessions import in_each

_SQL = Path(__file__).with_name("sql")
_IN_EACH = [_SQL / f"{name}.sql" for name in ("ownership", "superuser_runs", "dumpable", "forget", "content")]


def prepare(cluster: Cluster, databases: Iterable[str]) -> None:
    """Create the role draupnir, which the script may alter.

    Raises role_conflict if the data use a name of ours, and tampered_catalogs if they replace a function that our SQL
    calls.
    """
    if cluster.superuser == postgres.ROLE:
        detail = (
            "The superuser of the data has the name draupnir, which instances use. Rename it at the source (ALTER ROLE "
            "draupnir RENAME TO ...), and upload a backup to a new image."
        )
        raise JobError("role_conflict", detail)
    _require_free_names(cluster)
    cluster.run_files("template1", _SQL / "claim.sql")
    for lines in in_each(databases, lambda database: cluster.run_files(database, _SQL / "functions.sql")):
        catalogs.refuse_other_versions(cluster.major, catalogs.read(lines[:-1]))


def _require_free_names(cluster: Cluster) -> None:
    if cluster.run_files("template1", _SQL / "conflict.sql") != ["0"]:
        detail = (
            f"The data or the script have a role {postgres.SUPERUSERS}, and Draupnir uses that name in every image. "
            "Rename the role at the source, or in the script that creates it."
        )
        raise JobError("role_conflict", detail)


def hand_over(
    cluster: Cluster, databases: Mapping[str, int], rows: Rows
) -> tuple[dict[int, inspections.Judged], list[str]]:
    """Give draupnir the objects of the superuser, limit all roles to SQL, and delete the planner's statistics.

    ANALYZE would keep the statistics of a table that the script emptied. Return the verdicts by oid of the
    database, and the databases that have data.
    """
    _require_free_names(cluster)
    functions, verdicts = judge_functions(cluster, databases)
    trusted = {database: [*catalogs.oids(cluster.major), *verdicts[database].made] for database in databases}
    changes.report_functions(functions, verdicts, rows)
    in_each(
        databases,
        lambda database: cluster.run_files(
            database,
            _SQL / "powerless.sql",
            trusted=array(trusted[database]),
            powerless=array(verdicts[database].powerless),
        ),
    )
    cluster.run_files("template1", _SQL / "roles.sql", bootstrap=cluster.superuser)
    restricted = array(catalogs.permitted(cluster.major))
    answers = in_each(
        databases,
        lambda database: cluster.run_files(
            database,
            *_IN_EACH,
            bootstrap=cluster.superuser,
            kept=array(verdicts[database].kept),
            closed=array(verdicts[database].closed),
            restricted=restricted,
        ),
    )
    judged = {
        oid: inspections.Judged(
            {int(each.oid): each for each in functions[database]},
            frozenset(map(int, verdicts[database].closed)),
            frozenset(map(int, trusted[database])),
        )
        for database, oid in databases.items()
    }
    return judged, _report(databases, answers, rows)


def _report(databases: Iterable[str], answers: Iterable[Sequence[str]], rows: Rows) -> list[str]:
    """Add the rows of ownership.sql, and a row for several databases with data, which clients print.

    Return the databases that have data.
    """
    with_data = []
    for database, (*changed, has_data) in zip(databases, answers, strict=True):
        changes.add(changed, database, rows)
        with_data += [database] if has_data == "t" else []
    if len(with_data) > 1:
        default, names = default_database(databases, with_data), ", ".join(sorted(with_data))
        detail = f"Clients connect to the database {default} by default. These databases have tables: {names}."
        remedy = "Give a name: `draupnir-client env ID --database NAME` or `draupnir-client psql ID NAME`."
        rows.add("several_databases", detail, remedy=remedy)
    return with_data


def judge_functions(
    cluster: Cluster, databases: Iterable[str]
) -> tuple[dict[str, list[catalogs.Function]], dict[str, catalogs.Verdict]]:
    """Judge the functions of each database. Return the functions and the verdicts, by database."""
    made: dict[str, list[catalogs.Function]] = {}
    functions, verdicts = {}, {}
    judged = [_SQL / name for name in ("languages.sql", "functions.sql")]
    listed = in_each(databases, lambda database: cluster.run_files(database, *judged))
    for database, (*lines, extensions) in zip(databases, listed, strict=True):
        functions[database] = catalogs.read(lines)
        if extensions not in made and catalogs.needs_extensions(functions[database]):
            files = [_SQL / "extensions.sql", *judged]
            made[extensions] = catalogs.read(cluster.run_files("template0", *files, extensions=extensions)[:-1])
        verdicts[database] = catalogs.judge(cluster.major, functions[database], made.get(extensions, []))
    return functions, verdicts


def default_database(databases: Iterable[str], with_data: Sequence[str]) -> str:
    """Return the database to connect to: the only one with data, or postgres, or another one that exists.

    A name that is not UTF-8 cannot be in the answers of the API.
    """
    usable = [name for name in with_data if in_utf8(name)]
    if len(with_data) == 1 and usable:
        return usable[0]
    return next((name for name in ("postgres", *usable) if name in databases), "template1")


def in_utf8(name: str) -> bool:
    """Return whether the bytes of the name are UTF-8."""
    return re.search(r"[\ud800-\udfff]", name) is None
