"""Computes sizes: the kernel's limit above a ceiling, and the thresholds of free space; pure."""

from __future__ import annotations

_MIB, _GIB = 1024 * 1024, 1024**3

_SHARED_BUFFERS_BYTES = 128 * _MIB

# The filesystem of the embedded disk keeps this reserve, for the metadata, the journal and the administrator.
HOST_RESERVE_BYTES = _GIB
# btrfs metadata takes less than a sixteenth of the data that databases write.
DATA_PER_METADATA = 16


def wal_bytes(max_bytes: int) -> int:
    """Return max_wal_size for a ceiling: at least two segments of 64 MiB, and at most Postgres's default."""
    return min(_GIB, max(128 * _MIB, max_bytes // 8))


def limit_bytes(max_bytes: int, *, extended: bool) -> int:
    """Return the kernel's limit: the ceiling and a reserve, because Postgres cannot start if it cannot write its log.

    Reads write to the log, too. Pages that are rewritten take twice the space until btrfs commits.
    """
    reserve = 2 * wal_bytes(max_bytes) + _SHARED_BUFFERS_BYTES
    return max_bytes + reserve * (2 if extended else 1)


def low_bytes(size_bytes: int) -> int:
    """Return the free space below which nothing new is created."""
    return min(20 * _GIB, max(size_bytes // 20, min(512 * _MIB, size_bytes // 8)))


def critical_bytes(size_bytes: int) -> int:
    """Return the free space below which the instances that write most are stopped."""
    return low_bytes(size_bytes) // 2
