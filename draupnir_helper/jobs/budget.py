"""Limits for unpacking an archive, checked at every write: a ratio to its size, and the free space of the disk."""

from __future__ import annotations

import os
from pathlib import Path

from draupnir_helper import ceilings
from draupnir_helper.jobs.reports import NO_ROOM, JobError

# No real database of relevant size compresses further than this.
MAX_RATIO = 200
UNSUSPICIOUS_BYTES = 1024**3
# Each file or directory uses at least this much disk space.
ENTRY_BYTES = 4096


class Budget:
    """The limits of one archive; call `take` for each read and write."""

    def __init__(self, archive: Path, target: Path) -> None:
        self._name = archive.name
        self._target = target
        self._room_bytes = self._look()
        self._left_bytes = max(UNSUSPICIOUS_BYTES, MAX_RATIO * archive.stat().st_size)

    def take(self, size_bytes: int) -> None:
        """Count unpacked bytes. Raises JobError if they exceed the ratio, or if the disk is full."""
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            detail = (
                f"{self._name} is refused, because it unpacks to more than {MAX_RATIO} times its size, which no"
                " data directory does; upload a tar of the data directory to a new image."
            )
            raise JobError("ratio_exceeded", detail)
        # btrfs counts data only when it is written back to the disk, so the budget counts it here, too.
        self._room_bytes -= size_bytes
        if min(self._room_bytes, self._look()) < 0:
            raise JobError("no_room", NO_ROOM)

    def _look(self) -> int:
        """Return the free bytes of the disk beyond the reserve for instances."""
        found = os.statvfs(self._target)
        return found.f_bavail * found.f_frsize - ceilings.low_bytes(found.f_blocks * found.f_frsize)
