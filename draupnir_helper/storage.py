"""The data filesystem: is it there, is it the one it was, and how much room has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from draupnir_helper import btrfs, layout
from draupnir_helper.errors import HelperError
from draupnir_helper.wire import ErrorCode, Storage

EMBEDDED_DISK = Path("/var/lib/draupnir/data.btrfs")
MOUNT_OPTIONS = ("nodev", "noexec", "nosuid", "user_subvol_rm_allowed")
_FLAGS = {"nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC, "nosuid": os.ST_NOSUID}

# Kept free so that what exists can still be stopped, deleted and written about.
_RESERVE_BYTES = 64 * 1024 * 1024


@contextmanager
def root() -> Iterator[int]:
    """A descriptor of the data filesystem's top; STORAGE_MISSING unless it is the marked one, safely mounted."""
    missing = "The data filesystem is not mounted; run draupnir doctor on the server."
    try:
        descriptor = os.open(layout.DATA_LINK.resolve(strict=True), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise HelperError(ErrorCode.STORAGE_MISSING, missing) from error
    try:
        if _identity(descriptor) is None:
            raise HelperError(ErrorCode.STORAGE_MISSING, missing)
        lacking = [name for name, flag in _FLAGS.items() if not os.fstatvfs(descriptor).f_flag & flag]
        if lacking:
            detail = f"The data filesystem is mounted without {', '.join(lacking)}; run draupnir doctor on the server."
            raise HelperError(ErrorCode.STORAGE_MISSING, detail)
        yield descriptor
    finally:
        os.close(descriptor)


def _identity(descriptor: int) -> str | None:
    """The filesystem's id, if it is btrfs and the one that it is marked to be."""
    try:
        marker = os.open(layout.MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        with os.fdopen(marker, encoding="ascii", errors="replace") as file:
            marked = file.read(64).strip()
        found = btrfs.filesystem_id(descriptor)
    except OSError:
        return None
    return found if found == marked else None


def require_room(descriptor: int) -> None:
    """NO_ROOM when the filesystem is all but full."""
    found = os.fstatvfs(descriptor)
    if found.f_bavail * found.f_frsize < _RESERVE_BYTES:
        detail = "The data disk is full; destroy instances or images, or give it more room."
        raise HelperError(ErrorCode.NO_ROOM, detail)


def inspect() -> Storage | None:
    """What there is to say of the filesystem, or None when it is not there."""
    try:
        with root() as descriptor:
            found = os.fstatvfs(descriptor)
            identity = btrfs.filesystem_id(descriptor)
            options = _mount_options(layout.DATA_LINK.resolve())
            return Storage(
                filesystem_id=identity,
                missing_mount_options=[option for option in MOUNT_OPTIONS if option not in options],
                simple_quotas=_quota_mode(identity) == "squota",
                size_bytes=found.f_blocks * found.f_frsize,
                free_bytes=found.f_bavail * found.f_frsize,
                embedded=EMBEDDED_DISK.exists(),
            )
    except HelperError:
        return None


def _quota_mode(identity: str) -> str:
    try:
        return Path(f"/sys/fs/btrfs/{identity}/qgroups/mode").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return "disabled"


def _mount_options(path: Path) -> set[str]:
    """Options of the mount that holds the path, both of the mount and of its filesystem; proc_pid_mountinfo(5)."""
    best, options = "", set[str]()
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        point, mount_options = before.split(" ")[4:6]
        if len(point) >= len(best) and path.is_relative_to(point):
            best = point
            options = set(mount_options.split(",")) | set(after.split(" ")[2].split(","))
    return options
