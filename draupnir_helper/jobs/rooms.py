"""Checks how much room the disk and the limit of the image leave for the script."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from draupnir_helper.jobs.rows import Row

# Postgres stops if it cannot create a WAL file of this size.
_LEAST_BYTES = 16 * 1024 * 1024
_MIB = 1024 * 1024


def problems(directory: Path, max_image_bytes: int) -> Iterator[Row]:
    """Yield a row if the script has less room than the data take. A script that changes every row needs that much."""
    used_bytes = _used_bytes(directory)
    disk = os.statvfs(directory)
    yield from _problems(used_bytes, disk.f_bavail * disk.f_frsize, max_image_bytes)


def _problems(used_bytes: int, disk_bytes: int, max_image_bytes: int) -> Iterator[Row]:
    left_bytes = max_image_bytes - used_bytes
    is_limited = left_bytes < disk_bytes
    room_bytes = max(0, min(left_bytes, disk_bytes))
    if room_bytes >= used_bytes:
        return
    limit = f"max_image_bytes leaves {_mib(room_bytes)} of {_mib(max_image_bytes)}"
    where = limit if is_limited else f"the data disk has {_mib(room_bytes)} left"
    detail = f"The data take {_mib(used_bytes)}, and {where} for the script."
    remedy = "Raise max_image_bytes in /etc/draupnir/config.toml." if is_limited else "Destroy images or instances."
    if room_bytes < _LEAST_BYTES:
        yield Row("room_missing", detail, remedy=remedy)
    else:
        why = "A script that changes every row needs about as much room as the data take."
        yield Row("room_short", f"{detail} {why}", remedy=f"If the script fails with no_room: {remedy}")


def _used_bytes(directory: Path) -> int:
    total = 0
    for path, _, names in os.walk(directory):
        total += sum(os.lstat(os.path.join(path, name)).st_size for name in names)  # noqa: PTH118 - many files
    return total


def _mib(size_bytes: int) -> str:
    return f"{size_bytes // _MIB} MiB"
