"""Checks the data filesystem: that it is mounted, that it is the marked one, and its free space."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from draupnir_helper import btrfs, ceilings, layout
from draupnir_helper.errors import HelperError
from draupnir_helper.quotas import Quotas
from draupnir_helper.settings import Settings, bytes_of
from draupnir_helper.wire import MIN_MAX_BYTES, ErrorCode, Room, Storage

EMBEDDED_DISK = Path("/var/lib/draupnir/data.btrfs")
MOUNT_OPTIONS = ("nodev", "noexec", "nosuid", "user_subvol_rm_allowed")
_NO_BOUND = 2**62
_FLAGS = {"nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC, "nosuid": os.ST_NOSUID}


@contextmanager
def root() -> Iterator[int]:
    """Open the top of the data filesystem. Raises STORAGE_MISSING unless it is marked and safely mounted."""
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
    """Return the filesystem's id if it is btrfs and matches the marker, or None."""
    try:
        marker = os.open(layout.MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        with os.fdopen(marker, encoding="ascii", errors="replace") as file:
            marked = file.read(64).strip()
        found = btrfs.filesystem_id(descriptor)
    except OSError:
        return None
    return found if found == marked else None


def require_room(descriptor: int, settings: Settings) -> None:
    """Raise NO_ROOM if the free space is too low for new data."""
    found = room(descriptor, settings)
    if found.free_bytes < found.low_bytes:
        detail = (
            f"The data disk has {found.free_bytes >> 20} MiB free, and the last {found.low_bytes >> 20} MiB are"
            " reserved for existing data; destroy instances or images, or enlarge the disk."
        )
        raise HelperError(ErrorCode.NO_ROOM, detail)


def room(descriptor: int, settings: Settings) -> Room:
    """Return the free space: the smallest of btrfs's data, its metadata, and the growth of the embedded disk."""
    size = size_bytes(descriptor)
    found = os.fstatvfs(descriptor)
    # statfs counts data that is not yet on the disk, perhaps gigabytes, as free.
    can_write = max(0, found.f_bavail * found.f_frsize - _promised_bytes(descriptor))
    can_account = btrfs.metadata_room(descriptor) * ceilings.DATA_PER_METADATA
    return Room(
        size_bytes=size,
        free_bytes=min(can_write, can_account, _host_room()),
        low_bytes=ceilings.low_bytes(size),
        critical_bytes=ceilings.critical_bytes(size),
        max_instance_bytes=max_instance_bytes(size, settings),
    )


def _promised_bytes(descriptor: int) -> int:
    space = Path(f"/sys/fs/btrfs/{btrfs.filesystem_id(descriptor)}/allocation/data")
    try:
        return sum(int((space / name).read_text(encoding="ascii")) for name in ("bytes_may_use", "bytes_reserved"))
    except OSError:
        return 0


def size_bytes(descriptor: int) -> int:
    """Return the size of the data filesystem."""
    found = os.fstatvfs(descriptor)
    return found.f_blocks * found.f_frsize


def max_instance_bytes(size: int, settings: Settings) -> int:
    """Return the maximum ceiling of an instance: the configured one, or a quarter of the disk."""
    if settings.max_instance_bytes is not None:
        return bytes_of(settings.max_instance_bytes)
    return max(MIN_MAX_BYTES, size // 4)


def max_image_bytes(descriptor: int, settings: Settings) -> int:
    """Return the limit of an upload and of the work on it: the configured one, or half of the disk."""
    if settings.max_image_bytes is not None:
        return bytes_of(settings.max_image_bytes)
    return max(MIN_MAX_BYTES, size_bytes(descriptor) // 2)


def _host_room() -> int:
    """Return the bytes left on the host of the embedded disk. Without an embedded disk they are unlimited."""
    try:
        disk, host = EMBEDDED_DISK.stat(), os.statvfs(EMBEDDED_DISK.parent)
    except FileNotFoundError:
        return _NO_BOUND
    host_free_bytes = host.f_bavail * host.f_frsize
    if disk.st_size - disk.st_blocks * 512 <= host_free_bytes - ceilings.HOST_RESERVE_BYTES:
        return _NO_BOUND
    return max(0, host_free_bytes - ceilings.HOST_RESERVE_BYTES)


def inspect(settings: Settings) -> Storage | None:
    """Return the properties of the filesystem, or None if it is not mounted."""
    try:
        with root() as descriptor:
            identity = btrfs.filesystem_id(descriptor)
            options = _mount_options(layout.DATA_LINK.resolve())
            return Storage(
                filesystem_id=identity,
                missing_mount_options=[option for option in MOUNT_OPTIONS if option not in options],
                simple_quotas=Quotas(descriptor).simple,
                room=room(descriptor, settings),
                embedded=EMBEDDED_DISK.exists(),
            )
    except HelperError:
        return None


def _mount_options(path: Path) -> set[str]:
    """Return the options of the path's mount and of its filesystem; proc_pid_mountinfo(5)."""
    best, options = "", set[str]()
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        point, mount_options = before.split(" ")[4:6]
        if len(point) >= len(best) and path.is_relative_to(point):
            best = point
            options = set(mount_options.split(",")) | set(after.split(" ")[2].split(","))
    return options
