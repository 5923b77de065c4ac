"""Drops the kernel's caches, to measure an image that was not used for a day."""

from __future__ import annotations

import os

from tests.system.service import run

# /proc/sys is read-only in the machine. A new proc mount is writable if root has the host's capabilities.
_DROP = "mount -t proc proc /mnt && echo 3 >/mnt/sys/vm/drop_caches"


def drop() -> None:
    """Drop all unmapped pages and directory entries, also those of the host."""
    os.sync()
    run("unshare", "--mount", "sh", "-c", _DROP)
