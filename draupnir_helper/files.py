"""Small root-owned files, written whole or not at all, in directories that only root can write to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write(path: Path, content: str | bytes, *, mode: int, gid: int = 0) -> None:
    """Put the content at the path in one step, readable by the group where the mode says so."""
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


def link(path: Path, target: str) -> None:
    """Make the path a symbolic link to the target, in place of an earlier one."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.rename(path)


def make_pipe(path: Path, *, mode: int, gid: int = 0) -> None:
    """Make the path a named pipe with this mode and group, in place of whatever was there."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    os.chown(path, 0, gid)
    path.chmod(mode)


def make_directory(path: Path, *, mode: int, gid: int = 0) -> None:
    """A root-owned directory with this mode and group, made or corrected."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(path, 0, gid)
    path.chmod(mode)


def remove_directory(path: Path) -> None:
    """Remove a directory of ours with what is in it; an absent one is fine."""
    if path.exists():
        shutil.rmtree(path)
