"""Checks an extracted copy before its recovery: the WAL from which recovery starts, tablespaces, and the manifest."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from draupnir_helper import postgres
from draupnir_helper.jobs.known_files import shown
from draupnir_helper.jobs.reports import JobError, Reporter

_START = re.compile(r"^START WAL LOCATION: \S+ \(file [0-9A-F]{8}([0-9A-F]{16})\)", re.MULTILINE)
_INCREMENTAL = re.compile(r"^INCREMENTAL FROM LSN: ", re.MULTILINE)
_MAPPED = re.compile(r"^([0-9]+) ", re.MULTILINE)
_MAX_BYTES = 1024 * 1024
_PGBACKREST = (
    "The copy comes from a restore of pgBackRest that was never started. Back up with `pgbackrest --stanza=NAME "
    "--archive-copy backup`. Or run `pgbackrest --stanza=NAME --type=immediate --target-action=promote restore`, start "
    "the restored server once and stop it. "
)
_WITHOUT_WAL = (
    "Take the backup with pg_basebackup, without --wal-method=none. Or start the restored server once and stop it. "
)


def check(directory: Path, major: int, reporter: Reporter) -> None:
    """Raise JobError if the copy cannot be recovered or differs from its manifest; remove the map of tablespaces."""
    label = _read(directory / "backup_label")
    if _INCREMENTAL.search(label):
        detail = (
            "The upload is an incremental backup, which cannot be recovered without the earlier backups. Combine them "
            "with `pg_combinebackup FULL INCREMENTAL -o DIRECTORY`, and upload DIRECTORY to a new image."
        )
        raise JobError("incremental_backup", detail)
    start = _START.search(label)
    if start and not any((directory / "pg_wal").glob(f"*{start[1]}*")):
        advice = _PGBACKREST if "pgbackrest" in _read(directory / "postgresql.auto.conf") else _WITHOUT_WAL
        detail = f"pg_wal lacks the segment from which recovery starts. {advice}Upload the result to a new image."
        raise JobError("wal_missing", detail)
    _verify_manifest(directory, major, reporter)
    _use_tablespace_map(directory)


def _verify_manifest(directory: Path, major: int, reporter: Reporter) -> None:
    """Verify a base backup against its manifest. Without a backup_label, a server has changed the files since."""
    if major < 13 or not (directory / "backup_manifest").exists() or not (directory / "backup_label").exists():
        return
    reporter.step("verifying the backup manifest")
    command = [postgres.binary(major, "pg_verifybackup"), "--no-parse-wal", "--quiet", str(directory)]
    finished = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if finished.returncode != 0:
        detail = "The backup does not match its manifest. Upload it again, or take another backup; then finalise again."
        raise JobError("manifest_mismatch", detail, finished.stderr)


def _use_tablespace_map(directory: Path) -> None:
    """Remove the map. Recovery would make links from it, but tablespaces are directories here."""
    path = directory / "tablespace_map"
    for oid in _MAPPED.findall(_read(path)):
        if not any((directory / "pg_tblspc" / oid).glob("PG_*")):
            raise missing_tablespaces([oid])
    path.unlink(missing_ok=True)


def missing_tablespaces(names: list[str]) -> JobError:
    """Return the failure for tablespaces whose files are not in the upload."""
    which = ", ".join(shown(name) for name in names)
    detail = (
        f"The upload lacks the files of these tablespaces: {which}. Upload all files of `pg_basebackup -Ft`, also "
        "those with numbers, and finalise again. Or pack the stopped server with `tar --dereference`, and upload the "
        "archive to a new image."
    )
    return JobError("tablespaces", detail)


def _read(path: Path) -> str:
    """Return the beginning of the file, or an empty string if it does not exist."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("ascii", errors="replace")
    except FileNotFoundError:
        return ""
