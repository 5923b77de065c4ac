"""Runs VACUUM and ANALYZE on every table, to remove dead rows, and to give the planner the statistics of the source.

vacuumdb does not analyse partitioned tables before Postgres 18. It also ends at the first error of an ANALYZE, which
calls functions of the data. Here, such an error becomes a row of the report. An error of a VACUUM fails the image,
because dead rows would stay in it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from draupnir_helper import postgres
from draupnir_helper.jobs import failures
from draupnir_helper.jobs.clusters import Cluster, line
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.sessions import at_once

_SQL = Path(__file__).with_name("sql")
PARENTS = _SQL / "analysed_parents.sql"
# VACUUM leaves dead rows as free space in the pages.
_FULL = "VACUUM (FULL)"
_OID = re.compile("[0-9]+")
# A smaller database gets one session, and several small ones are processed at the same time.
_SMALL_BYTES = 32 * 1024 * 1024
# If a table has more expression indexes and one fails, all of them lose their statistics.
_MOST_INDEXES = 8
_LEAVES = "SELECT format('ANALYZE %s', relid) FROM pg_partition_tree({}) WHERE isleaf \\gexec"
# One transaction changes the catalogs and restores them, so that no other session sees the change. ANALYZE could not
# reach foreign tables from the sandbox.
_HIDE = (
    "BEGIN;",
    "SELECT coalesce(jsonb_agg(to_jsonb(i)), '[]') AS foreign FROM pg_inherits i JOIN pg_class c ON c.oid = inhrelid"
    " WHERE relkind = 'f' \\gset",
    "DELETE FROM pg_inherits USING pg_class c WHERE c.oid = inhrelid AND relkind = 'f';",
    "UPDATE pg_index SET indislive = false WHERE indexrelid = ANY ('{indexes}'::oid[]);",
)
_SHOW = (
    "UPDATE pg_index SET indislive = true WHERE indexrelid = ANY ('{indexes}'::oid[]);",
    "INSERT INTO pg_inherits SELECT * FROM jsonb_populate_recordset(NULL::pg_inherits, :'foreign');",
    "COMMIT;",
)

Table = Mapping[str, Any]  # as expressions.sql lists it


class Vacuum:
    """The VACUUM of all databases of one image."""

    def __init__(self, cluster: Cluster, rows: Rows) -> None:
        self._cluster = cluster
        self._rows = rows
        # Updating the oldest transaction of a database needs a scan of pg_class, so it is done once.
        newer = cluster.major >= 16
        self._vacuum = "VACUUM (SKIP_DATABASE_STATS)" if newer else "VACUUM"
        self._vacuum_analyze = "VACUUM (SKIP_DATABASE_STATS, ANALYZE)" if newer else "VACUUM (ANALYZE)"
        self._last = ["VACUUM (ONLY_DATABASE_STATS);"] if newer else []

    def run(
        self, databases: Mapping[str, int], parents: Mapping[int, str], changed: Mapping[str, Sequence[int]]
    ) -> None:
        """VACUUM and ANALYZE each database, and rewrite its changed tables with their indexes.

        `parents` are the partitioned tables that had statistics at the source, by oid of the database. `changed` are
        oids of tables by name of the database.
        """
        self._changed = {name: frozenset(oids) for name, oids in changed.items()}
        small = [name for name, oid in databases.items() if size_bytes(oid) < _SMALL_BYTES]
        with ThreadPoolExecutor(max_workers=at_once()) as pool:

            def run(database: str, session: int, sessions: int) -> list[tuple[int, str]]:
                return self._run(database, parents.get(databases[database], "{}"), session, sessions)

            failed = dict(zip(small, pool.map(lambda name: run(name, 0, 1), small), strict=True))
            for name in databases.keys() - failed.keys():
                found = pool.map(lambda number, name=name: run(name, number, at_once()), range(at_once()))
                failed[name] = [each for part in found for each in part]
                self._cluster.run_each(name, self._last)
        for name, found_in in failed.items():
            self._again(name, dict(found_in))

    def _run(self, database: str, parents: str, session: int, sessions: int) -> list[tuple[int, str]]:
        """Run one of the sessions; return the oids of tables that failed, with their SQLSTATEs."""
        file = self._cluster.directory / f"vacuum-{secrets.token_hex(4)}.sql"
        last = self._last if sessions == 1 else []
        failed = self._cluster.run_each(
            database,
            [f"\\i {_SQL / 'tables.sql'}", *last],
            source=str(file),
            file=str(file),
            parents=parents,
            vacuum=self._vacuum,
            vacuum_analyze=self._vacuum_analyze,
            changed=_array(self._changed[database]),
            session=str(session),
            sessions=str(sessions),
        )
        lines = file.read_text(encoding="ascii").splitlines() if failed else []
        return [(int(_OID.findall(lines[number - 1])[-1]), state) for number, state in failed.items()]

    def _again(self, database: str, failed: Mapping[int, str]) -> None:
        """Try VACUUM or ANALYZE again for the tables for which it failed, and report the result."""
        if failed:
            for text in self._cluster.run_files(database, _SQL / "expressions.sql", tables=_array(failed)):
                table = json.loads(text)
                self._one_again(database, table, failed[table["oid"]])

    def _one_again(self, database: str, table: Table, state: str) -> None:
        why = failures.described(self._cluster.major, state)
        name = str(table["name"])
        self._require_clean(database, table, why)
        indexes: Mapping[str, str] = table["indexes"] or {}
        if self._analyse(database, table):
            if not table["foreign"]:
                return
            done = f"The table was analysed without its foreign tables: {', '.join(table['foreign'])}"
            remedy = (
                "No action is needed. Queries of the foreign tables fail in an instance, so the script may detach them."
            )
        elif self._analyse(database, table, failing := self._failing(database, table, [*indexes])):
            names = ", ".join(indexes[oid] for oid in failing)
            done = f"The table was analysed without the expressions of {names}"
            remedy = (
                "If a function in the expression needs a search_path, run ALTER FUNCTION ... SET search_path = ... at "
                "the source or in the script."
            )
        else:
            if table["is_parent"]:
                self._cluster.run_each(database, [_LEAVES.format(table["oid"])])
            done, remedy = "The planner has no statistics of the table", "Correct the functions that ANALYZE calls."
        detail = f"ANALYZE failed: {why}. {done}."
        self._rows.add("analyze_failed", detail, database=database, object=name, remedy=remedy)

    def _require_clean(self, database: str, table: Table, why: str) -> None:
        """Try again to rewrite a changed table, and to vacuum it. Raises cleaning_failed."""
        oid, name = table["oid"], f"the table {table['name']} in database {database}"
        if oid in self._changed[database] and self._cluster.run_each(database, [line(_FULL, oid)]):
            detail = (
                f"The script changed {name}, which could not be rewritten: {why}. Raw rows would stay in the image. "
                "Correct the functions of its indexes in the script, for example with ALTER FUNCTION ... SET "
                "search_path = ..., and finalise again."
            )
            raise JobError("cleaning_failed", detail)
        if not table["is_parent"] and self._cluster.run_each(database, [line(self._vacuum, oid)]):
            detail = (
                f"VACUUM of {name} failed: {why}. Dead rows would stay in the image. Correct the table or the "
                "functions of its indexes in the script, and finalise again."
            )
            raise JobError("cleaning_failed", detail)

    def _failing(self, database: str, table: Table, indexes: Sequence[str]) -> Sequence[str]:
        """Return the indexes with which ANALYZE fails."""
        if len(indexes) > _MOST_INDEXES:
            return indexes
        return [each for each in indexes if not self._analyse(database, table, [i for i in indexes if i != each])]

    def _analyse(self, database: str, table: Table, hidden: Sequence[str] = ()) -> bool:
        """Run ANALYZE without foreign tables and the hidden indexes; return whether it succeeded."""
        indexes = "{" + ",".join(hidden) + "}"
        lines = [*_HIDE, line("ANALYZE", table["oid"]), *_SHOW]
        return not self._cluster.run_each(database, [each.replace("{indexes}", indexes) for each in lines])


def _array(oids: Iterable[int]) -> str:
    return "{" + ",".join(map(str, oids)) + "}"


def size_bytes(oid: int) -> int:
    """Return the size of a database in the default tablespace. A database in another tablespace counts as large."""
    try:
        with os.scandir(Path(postgres.PGDATA, "base", str(oid))) as entries:
            return sum(entry.stat().st_size for entry in entries)
    except FileNotFoundError:
        return _SMALL_BYTES
