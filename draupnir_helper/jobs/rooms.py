"""Checks how much room the disk and the limit of the image leave for the script."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from draupnir_helper.jobs.rows import Row

# Postgres stops if it cannot create a WAL file of this size.
_LEAST_BYTES = 16 * 1024 * 1024
_MIB = 1024 * 1024


def problems(directory: Path, left_bytes: int) -> Iterator[Row]:
    """Yield a row if the script has less room than the data take. A script that changes every row needs that much.

    `left_bytes` are those that max_image_bytes leaves.
    """
    disk = os.statvfs(directory)
    yield from _problems(_used_bytes(directory), disk.f_bavail * disk.f_frsize, left_bytes)


def _problems(used_bytes: int, disk_bytes: int, left_bytes: int) -> Iterator[Row]:
    room_bytes = min(left_bytes, disk_bytes)
    if room_bytes >= used_bytes:
        return
    where, remedy = "the data disk has", "Destroy images or instances."
    if left_bytes < disk_bytes:
        where, remedy = (
            "max_image_bytes leaves",
            "Raise max_image_bytes in /etc/draupnir/config.toml and restart draupnir-helper.",
        )
    detail = f"The data take {_mib(used_bytes)}, and {where} {_mib(room_bytes)} for the script."
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
