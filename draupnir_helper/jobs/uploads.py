"""Finds the data in an upload: one data directory, one archive, or the archives of a base backup, at any depth."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

from draupnir_helper.jobs import archives, configurations
from draupnir_helper.jobs.known_files import report, shown
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows

_MAX_DEPTH = 64
_COPIED_BYTES = 1024**3
_BASE_BACKUP = re.compile(r"(base|pg_wal|[0-9]+)\.tar(\.[a-z0-9]+)?")

Progress = Callable[[int, int], None]


class Survey(NamedTuple):
    """The data directories below a directory, and the files outside of them."""

    directories: list[Path]
    files: list[Path]


def survey(top: Path) -> Survey:
    """List a whole tree, except inside data directories. Raises unsafe_archive for links and special files."""
    found = Survey([], [])
    for path, directories, names in os.walk(top, onerror=_raise):
        here = Path(path)
        if len(here.relative_to(top).parts) >= _MAX_DEPTH:
            raise _too_deep()
        if (here / "PG_VERSION").is_file() and (here / "global/pg_control").is_file():
            found.directories.append(here)
            directories.clear()
            continue
        directories.sort()
        for name in sorted([*directories, *names]):
            mode = (here / name).lstat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise _not_regular(name)
        found.files.extend(here / name for name in sorted(names))
    return found


def _not_regular(name: str) -> JobError:
    detail = (
        f"{shown(name)} in the upload is a link or a special file, which is refused. Upload only regular files and "
        "directories, to a new image."
    )
    return JobError("unsafe_archive", detail)


def _raise(error: OSError) -> NoReturn:
    raise error


def fill(seal: Path, incoming: Path, progress: Progress, rows: Rows) -> None:
    """Fill the incoming directory from the upload."""
    found = survey(seal)
    packed = _packed(found)
    base = [path for path in packed if path.name.startswith("base.tar") and _BASE_BACKUP.fullmatch(path.name)]
    parts = [path for path in packed if len(base) == 1 and path.parent == base[0].parent]
    if found.directories:
        if len(found.directories) > 1 or packed:
            raise _several(seal, [*found.directories, *packed])
        copy_tree(found.directories[0], incoming)
        used = set[Path]()
    elif base:
        if any(path not in parts or not _BASE_BACKUP.fullmatch(path.name) for path in packed):
            raise _several(seal, packed)
        _unpack_base_backup(parts, incoming, progress)
        used = {*parts, base[0].with_name("backup_manifest")}
    elif len(packed) == 1:
        archives.unpack(packed[0], incoming, progress)
        used = set(packed)
    elif packed:
        raise _several(seal, packed)
    else:
        raise _not_an_archive([path for path in found.files if not path.name.startswith(".")])
    used.update(seal / name for name in configurations.FILES)
    report(rows, "", [shown(str(path.relative_to(seal))) for path in found.files if path not in used])


def _packed(found: Survey) -> list[Path]:
    return [path for path in found.files if not path.name.startswith(".") and archives.is_archive(path)]


def _unpack_base_backup(parts: list[Path], incoming: Path, progress: Progress) -> None:
    """Unpack the files of `pg_basebackup -Ft`, each perhaps compressed: the data, the log and tablespaces by oid."""
    for path in parts:
        name = path.name.partition(".")[0]
        target = incoming / {"base": "", "pg_wal": "pg_wal"}.get(name, f"pg_tblspc/{name}")
        target.mkdir(parents=True, exist_ok=True)
        archives.unpack(path, target, progress)
    if (parts[0].with_name("backup_manifest")).is_file():
        copy_file(parts[0].with_name("backup_manifest"), incoming / "backup_manifest")


def _several(top: Path, found: Iterable[Path]) -> JobError:
    names = ", ".join(shown(str(path.relative_to(top))) for path in list(found)[:20])
    detail = (
        f"The upload contains more than one data directory or archive ({names}), and only one is allowed. "
        "Create a new image and upload one of them, because uploaded files cannot be removed."
    )
    return JobError("several_archives", detail)


def _not_an_archive(files: list[Path]) -> JobError:
    if not files:
        return JobError(
            "no_data_directory", "The upload contains no archive and no data directory; upload one and finalise again."
        )
    if any(path.name == "PG_VERSION" for path in files):
        return _no_data_directory()
    name = files[0].name
    with files[0].open("rb") as file:
        is_dump = file.read(5) == b"PGDMP"
    what = "is a pg_dump file, not a copy of the data directory" if is_dump else "is not an archive of a known format"
    advice = "upload a tar of the data directory, plain or compressed with gzip, zstd, xz, bzip2 or lz4"
    return JobError("not_an_archive", f"{shown(name)} {what}; {advice}, and finalise again.")


def find_data_directory(incoming: Path, rows: Rows) -> Path:
    """Return the only data directory, and report the files outside of it. Raises no_data_directory."""
    found = survey(incoming)
    if len(found.directories) > 1:
        raise _several(incoming, found.directories)
    if not found.directories:
        packed = _packed(found)
        raise _archive_in_archive(incoming, packed) if packed else _no_data_directory()
    report(rows, "", [shown(str(path.relative_to(incoming))) for path in found.files])
    return found.directories[0]


def _no_data_directory() -> JobError:
    detail = (
        "The upload contains no data directory, which has the files PG_VERSION and global/pg_control; "
        "upload a tar of the whole data directory to a new image."
    )
    return JobError("no_data_directory", detail)


def _archive_in_archive(incoming: Path, packed: list[Path]) -> JobError:
    names = ", ".join(shown(str(path.relative_to(incoming))) for path in packed[:20])
    detail = f"The archive contains archives ({names}) and no data directory; upload these files to a new image."
    return JobError("no_data_directory", detail)


def copy_tree(source: Path, target: Path, depth: int = 0) -> None:
    """Copy files and directories, with shared extents if the filesystem supports it; refuse links and special files."""
    if depth > _MAX_DEPTH:
        raise _too_deep()
    with os.scandir(source) as scanned:
        entries = list(scanned)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            (target / entry.name).mkdir()
            copy_tree(Path(entry.path), target / entry.name, depth + 1)
        elif entry.is_file(follow_symlinks=False):
            copy_file(Path(entry.path), target / entry.name)
        else:
            raise _not_regular(entry.name)


def copy_file(source: Path, target: Path) -> None:
    """Copy one file, by reflink if possible."""
    with source.open("rb") as reader, target.open("wb") as writer:
        # This shares the extents if possible, and else copies. The sandbox blocks ioctl, and with it FICLONE.
        while os.copy_file_range(reader.fileno(), writer.fileno(), _COPIED_BYTES):
            pass


def _too_deep() -> JobError:
    detail = (
        f"The upload has directories that are nested {_MAX_DEPTH} levels deep or more, which no data directory has; "
        "upload the data directory to a new image."
    )
    return JobError("unsafe_archive", detail)
