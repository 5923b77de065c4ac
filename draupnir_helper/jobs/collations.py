"""Rebuilds the indexes that depend on a collation whose version is not the server's, and records its version.

Such an index is sorted differently from how the server compares: queries miss rows, and unique indexes accept
duplicates. The rebuild comes before the script, so that the script finds every row that it anonymises.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from draupnir_helper.jobs import failures
from draupnir_helper.jobs.clusters import Cluster, line
from draupnir_helper.jobs.reports import Reporter
from draupnir_helper.jobs.rows import Row
from draupnir_helper.jobs.sessions import at_once

_SQL = Path(__file__).with_name("sql")
LISTING = _SQL / "collations.sql"
_DUPLICATES = {"23505": "duplicates", "23P01": "conflicting rows"}
_CONSTRAINT = "The constraint depends on a collation whose version changed, so old rows may violate it."
_PARTITIONED = "The bounds depend on a collation whose version changed, so old rows may be in the wrong partition."

# An index as collations.sql lists it: its oid, its name and the name of its table.
Index = Mapping[str, Any]


class Collations:
    """The rebuild of the indexes of one image, with the indexes that could not be rebuilt, by database."""

    def __init__(self, cluster: Cluster, reporter: Reporter) -> None:
        self._cluster = cluster
        self._reporter = reporter
        self._invalid: dict[str, list[tuple[Index, Row]]] = {}

    def rebuild(self, listed: Mapping[str, Iterable[str]]) -> None:
        """Rebuild the indexes that collations.sql listed, refresh all versions, and add rows to the report."""
        stale = {database: [json.loads(line) for line in lines if line] for database, lines in listed.items()}
        for database, found in stale.items():
            if not found:
                continue
            indexes = [each for each in found if "index" in each]
            self._reporter.step("rebuilding indexes")
            started_s = time.monotonic()
            failed = self._reindex(database, indexes)
            self._tell(database, found, len(indexes) - len(failed), time.monotonic() - started_s)
            if failed:
                oids = ",".join(str(index["index"]) for index, _ in failed)
                self._cluster.run_files(database, _SQL / "invalid.sql", indexes=f"{{{oids}}}")
                self._invalid[database] = [(index, self._not_rebuilt(database, index, why)) for index, why in failed]
            self._cluster.run_files(database, _SQL / "collation_versions.sql")
        if any(stale.values()):
            self._cluster.run_files("template1", _SQL / "database_versions.sql")

    def retry(self, databases: Iterable[str]) -> None:
        """Rebuild the indexes that could not be rebuilt before the script, which may have removed the reason."""
        for database in self._invalid.keys() & set(databases):
            failed = [index for index, _ in self._reindex(database, [index for index, _ in self._invalid[database]])]
            for index, row in self._invalid[database]:
                if index not in failed:
                    self._reporter.rows.withdraw(row)

    def _reindex(self, database: str, indexes: list[Index]) -> list[tuple[Index, str]]:
        """Rebuild the indexes, some at a time; return those that failed, with the SQLSTATE."""
        parts = [part for number in range(at_once()) if (part := indexes[number :: at_once()])]

        def run(part: list[Index]) -> list[tuple[Index, str]]:
            failed = self._cluster.run_each(database, [line("REINDEX INDEX", each["index"]) for each in part])
            return [(part[number - 1], state) for number, state in failed.items()]

        with ThreadPoolExecutor(max_workers=at_once()) as pool:
            return [each for failed in pool.map(run, parts) for each in failed]

    def _tell(self, database: str, found: Iterable[Index], rebuilt: int, seconds: float) -> None:
        names = ", ".join(str(each["collation"]) for each in found if "collation" in each)
        if names:
            detail = (
                f"{rebuilt} indexes were rebuilt in {seconds:.1f} s, because the version of their collation was "
                f"missing or differed from the server's. These versions were refreshed: {names}."
            )
            remedy = (
                "No action is needed. If the source has the libc and ICU of this server, save the time: run REINDEX "
                "DATABASE and ALTER DATABASE ... REFRESH COLLATION VERSION there."
            )
            self._reporter.rows.add("collation_refreshed", detail, database=database, remedy=remedy)
        for each in found:
            if "constraint" in each:
                name = f"{each['table']}, constraint {each['constraint']}"
                remedy = "Compare the rows with the constraint, and correct them in the anonymisation script."
                self._reporter.rows.add("collation_order", _CONSTRAINT, database=database, object=name, remedy=remedy)
            elif "partitioned" in each:
                remedy = "Compare the rows with the bounds, and move misplaced rows in the anonymisation script."
                name = str(each["partitioned"])
                self._reporter.rows.add("collation_order", _PARTITIONED, database=database, object=name, remedy=remedy)

    def _not_rebuilt(self, database: str, index: Index, state: str) -> Row:
        why = failures.described(self._cluster.major, state)
        if state in _DUPLICATES:
            why = f"the table has {_DUPLICATES[state]}, {why}"
            remedy = "Delete the duplicates at the source, where the same index accepted them, or in the script."
        else:
            remedy = "Correct the function that the index calls. In an instance, REINDEX INDEX makes the index valid."
        detail = f"The index could not be rebuilt with the new version of its collation: {why}. Queries do not use it."
        name = f"{index['table']}, index {index['name']}"
        return self._reporter.rows.add("index_invalid", detail, database=database, object=name, remedy=remedy)
