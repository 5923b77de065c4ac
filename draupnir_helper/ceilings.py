"""Numbers of bytes: the kernel's limit above a ceiling, and how little room is too little; touches nothing."""

from __future__ import annotations

_MIB, _GIB = 1024 * 1024, 1024**3

_SHARED_BUFFERS_BYTES = 128 * _MIB

# Free on the filesystem beside the embedded disk, for the metadata, the journal, and the administrator.
HOST_RESERVE_BYTES = _GIB
# What databases write takes less than a sixteenth of itself in metadata of btrfs.
DATA_PER_METADATA = 16


def wal_bytes(max_bytes: int) -> int:
    """How much of the log an instance with that ceiling may keep between checkpoints: two segments of 64 MiB at least,
    and what Postgres has by default at most.
    """
    return min(_GIB, max(128 * _MIB, max_bytes // 8))


def limit_bytes(max_bytes: int, *, extended: bool) -> int:
    """The kernel's limit. Postgres that cannot write its log does not start again, so there is a reserve for that.

    Reading writes to the log, too, and pages that are written again take room twice until btrfs has committed.
    """
    reserve = 2 * wal_bytes(max_bytes) + _SHARED_BUFFERS_BYTES
    return max_bytes + reserve * (2 if extended else 1)


def low_bytes(size_bytes: int) -> int:
    """With less room than that nothing new is made."""
    return min(20 * _GIB, max(size_bytes // 20, min(512 * _MIB, size_bytes // 8)))


def critical_bytes(size_bytes: int) -> int:
    """With less room than that what writes most is stopped."""
    return low_bytes(size_bytes) // 2
