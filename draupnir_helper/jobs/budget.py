"""How much may come out of an archive: in proportion to its size, and as long as the disk has room, at every write."""

from __future__ import annotations

import os
from pathlib import Path

from draupnir_helper import ceilings
from draupnir_helper.jobs.reports import NO_ROOM, JobError

# No database is so empty that it shrinks to less, once it is large enough for that to matter.
MAX_RATIO = 200
UNSUSPICIOUS_BYTES = 1024**3
# What a file or directory takes of the disk, however little it holds.
ENTRY_BYTES = 4096


class Budget:
    """What is left for one archive; `take` goes with each read and write."""

    def __init__(self, archive: Path, target: Path) -> None:
        self._name = archive.name
        self._target = target
        self._room_bytes = self._look()
        self._left_bytes = max(UNSUSPICIOUS_BYTES, MAX_RATIO * archive.stat().st_size)

    def take(self, size_bytes: int) -> None:
        """Count bytes that were unpacked. Raises JobError if that is too much, or the disk has no room for more."""
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            detail = (
                f"{self._name} is refused, because more than {MAX_RATIO} times its size is in it, which no"
                " data directory does; upload a tar of the data directory and finalise again."
            )
            raise JobError("ratio_exceeded", detail)
        # btrfs counts what is written only when it is on the disk, so what came out of here is counted here, too.
        self._room_bytes -= size_bytes
        if min(self._room_bytes, self._look()) < 0:
            raise JobError("no_room", NO_ROOM)

    def _look(self) -> int:
        """How much room the disk shows above what is kept for instances."""
        found = os.statvfs(self._target)
        return found.f_bavail * found.f_frsize - ceilings.low_bytes(found.f_blocks * found.f_frsize)
