"""Finds the tables that the script changed, and rewrites the catalogs, because dead rows stay in the files of Postgres.

The files decide, because a script can reset the statistics: a changed table has another filenode than before the
script, or a page that is younger than the position in the log where the script began, or it lost a column.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from draupnir_helper import postgres
from draupnir_helper.jobs.clusters import Cluster, line
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.sessions import in_each

_SQL = Path(__file__).with_name("sql")
_PG_CLASS = 1259
_PAGE_BYTES = 8192
_CLOCK_S = 2.0  # the time of a file is as exact as the tick of the kernel


class Position(NamedTuple):
    """A moment of the job: its time, and the position in the write-ahead log."""

    time_s: float
    lsn: int


class File(NamedTuple):
    """A file of a table, its TOAST table or one of their indexes."""

    table: int
    filenode: int
    dropped_columns: int
    is_catalog: bool
    always: bool


class Before(NamedTuple):
    """What is known before the script; `start` is the start of the job, whose own changes of catalogs count, too."""

    start: Position
    script: Position
    files: Mapping[int, frozenset[tuple[int, int]]]  # filenode and number of dropped columns, by oid of the database


class Changed(NamedTuple):
    """The oids of changed tables of one database, and of all tables."""

    tables: list[int]
    catalogs: list[int]
    present: set[int]


def position(cluster: Cluster) -> Position:
    """Return the current moment, with all changes before it in the files."""
    time_s = time.time() - _CLOCK_S
    return Position(time_s, int(cluster.run_files("template1", _SQL / "position.sql")[0]))


def survey(cluster: Cluster, databases: Mapping[str, int], start: Position) -> Before:
    """Note the files of all tables before the script."""
    found = in_each(databases, lambda database: _files(cluster, database))
    known = {
        oid: frozenset((file.filenode, file.dropped_columns) for file in files)
        for oid, files in zip(databases.values(), found, strict=True)
    }
    return Before(start, position(cluster), known)


def find_changed(cluster: Cluster, databases: Mapping[str, int], before: Before) -> dict[str, Changed]:
    """Return what has been changed since then, by name of the database."""
    position(cluster)

    def search(database: str) -> Changed:
        oid = databases[database]
        found = Changed([], [], set())
        known = before.files.get(oid, frozenset())
        paths = files_of(oid)
        seen = set[int]()
        for file in _files(cluster, database):
            found.present.add(file.table)
            if file.table in seen:
                continue
            since = before.start if file.is_catalog else before.script
            if (
                file.always
                or (file.filenode, file.dropped_columns) not in known
                or any(_is_younger(path, since) for path in paths.get(file.filenode, ()))
            ):
                seen.add(file.table)
                (found.catalogs if file.is_catalog else found.tables).append(file.table)
        return found

    return dict(zip(databases, in_each(databases, search), strict=True))


def keep(databases: Mapping[str, int], rows: Rows) -> dict[str, Changed]:
    """Rewrite nothing, as the operator asked, and say so in the first row of the report."""
    detail = (
        "The image keeps residue: nothing was rewritten, and no search was made. Its files may contain values that the"
        " script removed, and users of its instances may be able to read them."
    )
    rows.lead("residue_kept", detail, remedy="Create an image without --keep-residue.")
    return {database: Changed([], [], set()) for database in databases}


def rewrite_catalogs(cluster: Cluster, changed: Mapping[str, Changed]) -> None:
    """Rewrite the changed catalogs of each database, then all shared ones, which lock out other sessions."""
    in_each(changed, lambda database: _rewrite(cluster, database, changed[database].catalogs))
    _rewrite(cluster, "template1", map(int, cluster.run_files("template1", _SQL / "shared_catalogs.sql")))


def _rewrite(cluster: Cluster, database: str, tables: Iterable[int]) -> None:
    # pg_class comes last, without the old filenodes of the other catalogs.
    lines = [line("VACUUM (FULL)", oid) for oid in sorted(tables, key=lambda oid: oid == _PG_CLASS)]
    if cluster.run_each(database, [*lines, line("VACUUM", _PG_CLASS)]):
        raise JobError("cleaning_failed", "A catalog could not be rewritten. Finalise again.")


def _files(cluster: Cluster, database: str) -> Iterator[File]:
    for text in filter(None, cluster.run_files(database, _SQL / "files.sql")):
        table, filenode, dropped_columns, is_catalog, always = map(int, text.split("|"))
        yield File(table, filenode, dropped_columns, bool(is_catalog), bool(always))


def files_of(database: int) -> dict[int, list[Path]]:
    """Return the files of a database by filenode: the main forks with all their segments."""
    found: dict[int, list[Path]] = {}
    data = Path(postgres.PGDATA)
    # A database in another tablespace has no directory below base.
    for directory in (*data.glob(f"base/{database}"), *data.glob(f"pg_tblspc/*/PG_*/{database}")):
        for name in os.listdir(directory):
            filenode = name.partition(".")[0]
            if filenode.isascii() and filenode.isdigit():
                found.setdefault(int(filenode), []).append(directory / name)
    return found


def _is_younger(path: Path, since: Position) -> bool:
    """Return whether a page of the file was changed since then. A page begins with its position in the log."""
    with path.open("rb", buffering=0) as file:
        state = os.fstat(file.fileno())
        if state.st_mtime < since.time_s:
            return False
        for start in range(0, state.st_size, _PAGE_BYTES):
            head = os.pread(file.fileno(), 8, start)
            lsn = int.from_bytes(head[:4], "little") << 32 | int.from_bytes(head[4:], "little")
            if lsn > since.lsn:
                return True
    return False
