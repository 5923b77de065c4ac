"""Small root-owned files, written atomically, in directories that only root can write to."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from draupnir_helper.layout import NEW_PREFIX


def write(path: Path, content: str | bytes, *, mode: int, gid: int = 0) -> None:
    """Write the content to the path atomically, with the mode and group."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchown(descriptor, 0, gid)
            os.fchmod(descriptor, mode)
            file.write(content if isinstance(content, bytes) else content.encode())
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def write_in(directory: int, name: str, content: bytes) -> None:
    """Do the same as `write`, readable only by root, in a directory descriptor that only root can write to."""
    new = f"{NEW_PREFIX}{name}"
    with suppress(FileNotFoundError):
        os.unlink(new, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(new, dir_fd=directory)
        raise


def remove_in(directory: int, name: str) -> None:
    """Remove a file of ours; do nothing if it does not exist."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def link(path: Path, target: str) -> None:
    """Make the path a symbolic link to the target, replacing an earlier one."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.rename(path)


def make_pipe(path: Path, *, mode: int, gid: int = 0) -> None:
    """Make the path a named pipe with this mode and group, replacing anything that exists."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    os.chown(path, 0, gid)
    path.chmod(mode)


def make_directory(path: Path, *, mode: int, gid: int = 0) -> None:
    """Create a root-owned directory with this mode and group, or correct an existing one."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(path, 0, gid)
    path.chmod(mode)


def remove_directory(path: Path) -> None:
    """Remove a directory of ours with its content; do nothing if it does not exist."""
    if path.exists():
        shutil.rmtree(path)
