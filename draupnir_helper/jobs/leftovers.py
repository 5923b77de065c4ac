"""Removes from a stopped data directory what is in no relation: old WAL, statistics, temporary and orphaned files."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from draupnir_helper import postgres
from draupnir_helper.jobs import bki, known_files
from draupnir_helper.jobs.heaps import DamagedCatalog, Relations
from draupnir_helper.jobs.inspections import database_directory, tampered
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows

_RELATION = re.compile(r"([0-9]+)(_(fsm|vm|init))?(\.[0-9]+)?", re.ASCII)


def remove(data: Path, major: int, rows: Rows) -> None:
    """Remove all of it. Raises tampered_catalogs if the catalogs cannot be read."""
    try:
        for directory, filenodes in _directories(data, major):
            for path in list(directory.iterdir()):
                found = _RELATION.fullmatch(path.name)
                if found and int(found[1]) not in filenodes:
                    path.unlink()
    except DamagedCatalog as error:
        raise tampered(["files of catalogs that cannot be read"], str(error)) from error
    known_files.prune(data, major, rows)
    _reset_wal(data, major)


def _directories(data: Path, major: int) -> Iterator[tuple[Path, set[int]]]:
    """Yield each directory with files of relations, and the filenodes that belong there; remove unknown databases."""
    shared = Relations(data / "global")
    yield data / "global", shared.mapped
    databases = {row["oid"]: row for row in shared.rows(bki.catalog(major, "pg_database"))}
    for path in (*data.glob("base/[0-9]*"), *data.glob("pg_tblspc/*/PG_*/[0-9]*")):
        if path.name not in map(str, databases):
            shutil.rmtree(path)
    for oid, row in databases.items():
        relations = Relations(database_directory(data, row))
        relations.learn(bki.catalog(major, "pg_class"))
        for directory in (*data.glob(f"base/{oid}"), *data.glob(f"pg_tblspc/*/PG_*/{oid}")):
            yield directory, relations.mapped | relations.learned


def _reset_wal(data: Path, major: int) -> None:
    """Replace the log by an empty one. Nothing in it is needed after a clean stop. Raises cleaning_failed."""
    finished = subprocess.run(
        [postgres.binary(major, "pg_resetwal"), "-D", str(data)],
        capture_output=True, text=True, errors="replace", check=False, env={"LC_ALL": "C"},
    )  # fmt: skip
    if finished.returncode != 0:
        detail = (
            "pg_resetwal refuses the data directory after the script. A script must not write files there with COPY "
            "... TO or lo_export. Correct it and finalise again."
        )
        raise JobError("cleaning_failed", detail, finished.stderr)
