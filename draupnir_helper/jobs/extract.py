"""The extract job: turns a sealed upload of any form into a clean data directory; runs as the upload user."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from draupnir_helper import postgres
from draupnir_helper.jobs import archives, configurations, reports
from draupnir_helper.jobs.clusters import read_major
from draupnir_helper.jobs.known_files import prune, shown
from draupnir_helper.jobs.reports import JobError, Report, Reporter
from draupnir_helper.jobs.rows import Rows

SEAL = Path("/srv/seal")
TARGET = Path(postgres.PGDATA)
_INCOMING = ".incoming"
_MAX_DEPTH = 64
_COPIED_BYTES = 1024**3
_BASE_BACKUP = re.compile(r"(base|pg_wal)\.tar(\.[a-z0-9]+)?")
_TABLESPACE = re.compile(r"[0-9]+\.tar(\.[a-z0-9]+)?")


def main(reporter: Reporter) -> Report:
    """Unpack or copy the upload; find, verify and clean the data directory; report its major."""
    incoming = TARGET / _INCOMING
    incoming.mkdir()
    fill(SEAL, incoming, lambda done, total: reporter.progress("extracting", done, total))
    directory = find_data_directory(incoming)
    major = read_major(directory)
    verify_manifest(directory, major, reporter)
    # Debian keeps postgresql.conf elsewhere; it may be uploaded beside an archive.
    settings = configurations.carried_over((directory, SEAL), reporter.rows)
    clean(directory, reporter.rows)
    lift(directory, TARGET)
    shutil.rmtree(incoming)
    return Report(step="extracted", postgres_major=major, parameters=settings)


def fill(seal: Path, incoming: Path, progress: Callable[[int, int], None]) -> None:
    """Fill the incoming directory from the upload: one archive, the archives of a base backup, or plain files."""
    entries = sorted(
        (entry for entry in seal.iterdir() if not entry.name.startswith(".")), key=lambda entry: entry.name
    )
    for entry in entries:
        if not stat.S_ISREG(entry.lstat().st_mode) and not stat.S_ISDIR(entry.lstat().st_mode):
            raise JobError(
                "unsafe_archive", f"{shown(entry.name)} is neither a file nor a directory; upload it as one."
            )
    if (seal / "PG_VERSION").exists() or any((entry / "PG_VERSION").exists() for entry in entries if entry.is_dir()):
        copy_tree(seal, incoming)
        return
    files = [entry for entry in entries if entry.is_file()]
    found = [entry for entry in files if archives.is_archive(entry)]
    base_backup = [entry for entry in found if _BASE_BACKUP.fullmatch(entry.name)]
    if any(entry.name.startswith("base.tar") for entry in base_backup):
        _fill_from_base_backup(seal, incoming, found, progress)
    elif len(found) == 1:
        archives.unpack(found[0], incoming, progress)
    elif found:
        names = ", ".join(shown(entry.name) for entry in found)
        detail = f"There are several archives ({names}) and only one is allowed; remove the others and finalise again."
        raise JobError("several_archives", detail)
    else:
        raise _not_an_archive(files)


def _fill_from_base_backup(seal: Path, incoming: Path, found: list[Path], progress: Callable[[int, int], None]) -> None:
    """Unpack the files of `pg_basebackup -Ft`: base.tar, pg_wal.tar and backup_manifest, each perhaps compressed."""
    for entry in found:
        if _TABLESPACE.fullmatch(entry.name):
            raise _tablespaces()
        if not _BASE_BACKUP.fullmatch(entry.name):
            detail = (
                f"{shown(entry.name)} lies beside a base backup and is not part of it; remove it and finalise again."
            )
            raise JobError("several_archives", detail)
    for entry in sorted(found, key=lambda entry: entry.name):
        target = incoming if entry.name.startswith("base.") else incoming / "pg_wal"
        target.mkdir(exist_ok=True)
        archives.unpack(entry, target, progress)
    if (seal / "backup_manifest").is_file():
        copy_file(seal / "backup_manifest", incoming / "backup_manifest")


def _not_an_archive(files: list[Path]) -> JobError:
    if not files:
        return JobError(
            "no_data_directory", "The upload contains no archive and no data directory; upload one and finalise again."
        )
    name = files[0].name
    with files[0].open("rb") as file:
        is_dump = file.read(5) == b"PGDMP"
    what = "is a pg_dump file, not a copy of the data directory" if is_dump else "is not an archive of a known format"
    advice = "upload a tar of the data directory, plain or compressed with gzip, zstd, xz, bzip2 or lz4"
    return JobError("not_an_archive", f"{shown(name)} {what}; {advice}, and finalise again.")


def copy_tree(source: Path, target: Path, depth: int = 0) -> None:
    """Copy files and directories, with shared extents if the filesystem supports it; refuse links and special files."""
    if depth > _MAX_DEPTH:
        detail = f"The upload has folders {_MAX_DEPTH} deep and more, which no data directory has; upload it again."
        raise JobError("unsafe_archive", detail)
    with os.scandir(source) as scanned:
        entries = list(scanned)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            (target / entry.name).mkdir()
            copy_tree(Path(entry.path), target / entry.name, depth + 1)
        elif entry.is_file(follow_symlinks=False):
            copy_file(Path(entry.path), target / entry.name)
        else:
            detail = f"{shown(entry.name)} in the upload is a link or no regular file; upload the file itself."
            raise JobError("unsafe_archive", detail)


def copy_file(source: Path, target: Path) -> None:
    """Copy one file, by reflink if possible."""
    with source.open("rb") as reader, target.open("wb") as writer:
        # Shares the extents if possible, else copies. The sandbox blocks ioctl, and with it FICLONE.
        while os.copy_file_range(reader.fileno(), writer.fileno(), _COPIED_BYTES):
            pass


def find_data_directory(incoming: Path) -> Path:
    """Return the data directory, at the top or in one folder. Raises no_data_directory."""
    candidates = [incoming, *(entry for entry in sorted(incoming.iterdir()) if entry.is_dir())]
    found = [path for path in candidates if (path / "PG_VERSION").is_file() and (path / "global/pg_control").is_file()]
    if not found:
        detail = (
            "The upload contains no data directory (PG_VERSION with global/pg_control), at the top or in one folder; "
            "upload a tar of the whole data directory and finalise again."
        )
        raise JobError("no_data_directory", detail)
    return found[0]


def verify_manifest(directory: Path, major: int, reporter: Reporter) -> None:
    """Verify a base backup against its manifest; without a backup_label a server has written to it since."""
    if major < 13 or not (directory / "backup_manifest").exists() or not (directory / "backup_label").exists():
        return
    reporter.step("verifying the backup manifest")
    command = [postgres.binary(major, "pg_verifybackup"), "--no-parse-wal", "--quiet", str(directory)]
    finished = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if finished.returncode != 0:
        detail = "The backup does not match its manifest; take and upload it again, and finalise again."
        raise JobError("manifest_mismatch", detail, finished.stderr)


def clean(directory: Path, rows: Rows) -> None:
    """Remove everything but the data of the server that the copy was taken from."""
    # A base backup in tar format always has this file; it is empty if there are no tablespaces.
    tablespace_map = directory / "tablespace_map"
    if tablespace_map.exists():
        if tablespace_map.stat().st_size > 0:
            raise _tablespaces()
        tablespace_map.unlink()
    prune(directory, rows)
    (directory / "postgresql.auto.conf").write_bytes(b"")


def lift(directory: Path, target: Path) -> None:
    """Move the content of the directory up to the target, which is otherwise empty, so names cannot clash."""
    for path in list(directory.iterdir()):
        if path.name != _INCOMING:
            path.rename(target / path.name)


def _tablespaces() -> JobError:
    detail = (
        "The backup has tablespaces outside the data directory, which Draupnir does not support; "
        "move their tables to pg_default before the backup, then upload and finalise again."
    )
    return JobError("tablespaces", detail)


if __name__ == "__main__":
    reports.run(main)
