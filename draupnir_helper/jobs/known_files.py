"""The files of a data directory that Postgres knows; everything else in an extracted copy is removed and reported.

A data directory often has password files, keys, old configuration, logs and dumps. An allowlist also drops unforeseen
ones. The names are those of Postgres 12 to 18; the directory of a tablespace has the major in its name.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from draupnir_helper.jobs.rows import Rows

_TABLESPACE = r"pg_tblspc/\d+/PG_\d+_\d+"
_RELATION = r"\d+(_(fsm|vm|init))?(\.\d+)?"
_SEGMENT = "[0-9A-F]{24}"
# These are emptied, because their files belong to one run of a server, or quote the data.
_TRANSIENT = ("pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat", "pg_stat_tmp")
# Postgres needs each of these. They are often empty, and some tools do not copy empty directories.
_REQUIRED = (
    *_TRANSIENT,
    *("pg_commit_ts", "pg_logical/mappings", "pg_logical/snapshots", "pg_subtrans", "pg_tblspc", "pg_twophase"),
)
_DIRECTORIES = re.compile(
    "|".join(
        (
            *_REQUIRED,
            r"base(/\d+)?|global|pg_logical|pg_multixact(/(members|offsets))?|pg_wal(/(archive_status|summaries))?|pg_xact",
            rf"pg_tblspc/\d+|{_TABLESPACE}(/\d+)?",
        )
    ),
    re.ASCII,
)
_FILES = re.compile(
    "|".join((
        r"PG_VERSION|backup_label|tablespace_map|postgresql\.auto\.conf",
        rf"(base|{_TABLESPACE})/\d+/(PG_VERSION|pg_filenode\.map|{_RELATION})",
        rf"global/(pg_control|pg_filenode\.map|{_RELATION})",
        rf"pg_wal/({_SEGMENT}(\.partial|\.[0-9A-F]{{8}}\.backup)?|[0-9A-F]{{8}}\.history)",
        "(pg_commit_ts|pg_subtrans|pg_xact|pg_multixact/(members|offsets))/[0-9A-F]{4,15}",
        "pg_twophase/[0-9A-F]{8}([0-9A-F]{8})?",
        r"pg_logical/(mappings/map-[0-9A-Fa-f_-]+|snapshots/[0-9A-F]+-[0-9A-F]+\.snap)",
    )),
    re.ASCII,
)  # fmt: skip
# Every server has these, and the copy does not need them: configuration, caches and temporary files.
_EXPECTED = re.compile(
    "|".join((
        r"(postgresql|pg_hba|pg_ident)\.conf|postgresql\.auto\.conf\.tmp|postmaster\.(pid|opts)",
        r"(standby|recovery)\.signal|(backup_label|tablespace_map)\.old|backup_manifest|current_logfiles(\.tmp)?",
        rf"(global|(base|{_TABLESPACE})/\d+)/(pg_internal\.init(\.\d+)?|pg_filenode\.map\.tmp|t\d+_{_RELATION})",
        rf"(base|{_TABLESPACE})/pgsql_tmp",
        r"pg_wal/(xlogtemp\.\d+|RECOVERY(XLOG|HISTORY)|(archive_status|summaries)/.*)|pg_logical/\w+\.tmp",
        # Subscriptions are dropped, so their origins are not needed. A damaged file would stop recovery.
        "pg_logical/replorigin_checkpoint",
        f"({'|'.join(_TRANSIENT)})/.*",
        r"\.draupnir-(report|error)",  # of an earlier job
    )),
    re.ASCII,
)  # fmt: skip
_LISTED = 20  # rows for each directory; the last one counts the rest
_REMEDY = "No action is needed, unless an extension or a program keeps data there; store such data in tables instead."


def prune(directory: Path, major: int, rows: Rows) -> None:
    """Remove and report all files that Postgres does not know, and create missing directories."""
    for path in directory.glob("pg_tblspc/*/PG_*"):
        # pg_upgrade leaves the files of the former major beside those of the new one.
        if path.is_dir() and not path.name.startswith(f"PG_{major}_"):
            shutil.rmtree(path)
            report(rows, "", [f"{shown(str(path.relative_to(directory)))}/"])
    for parent, names in _remove_unknown(directory, ""):
        report(rows, parent, names)
    for name in _REQUIRED:
        (directory / name).mkdir(parents=True, exist_ok=True)


def report(rows: Rows, parent: str, names: list[str]) -> None:
    """Add a row for each of the names, but only for the first few of many."""
    listed = names if len(names) <= _LISTED else names[: _LISTED - 1]
    for name in listed:
        what = "Postgres does not know this file or directory, so the image does not contain it."
        rows.add("file_dropped", what, object=f"{parent}{name}", remedy=_REMEDY)
    if rest := len(names) - len(listed):
        what = f"Postgres does not know {rest} more files here, so the image does not contain them."
        rows.add("file_dropped", what, object=parent or ".", remedy=_REMEDY)


def shown(text: str) -> str:
    """Return a name of the upload as it may appear in a message."""
    return ascii(text)[1:-1][:200]


def _remove_unknown(directory: Path, prefix: str) -> Iterator[tuple[str, list[str]]]:
    unknown = []
    with os.scandir(directory) as scanned:
        entries = sorted(scanned, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        is_directory = entry.is_dir(follow_symlinks=False)
        if (_DIRECTORIES if is_directory else _FILES).fullmatch(name):
            if is_directory:
                yield from _remove_unknown(Path(entry.path), f"{name}/")
            continue
        if is_directory:
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()
        if not _EXPECTED.fullmatch(name):
            unknown.append(shown(entry.name) + ("/" if is_directory else ""))
    yield shown(prefix), unknown
