"""The kernel's caches, made cold on purpose: what a server is like that has not touched an image for a day."""

from __future__ import annotations

import os

from tests.system.service import run

# The machine shows /proc/sys read-only. A proc of one's own does not, where root has the host's capabilities.
_DROP = "mount -t proc proc /mnt && echo 3 >/mnt/sys/vm/drop_caches"


def drop() -> None:
    """Forget every page and directory entry that nobody has mapped, those of the host of this machine too."""
    os.sync()
    run("unshare", "--mount", "sh", "-c", _DROP)
