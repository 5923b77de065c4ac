"""The full error text of a failed image, raw rows included, retained beside the upload for uploaders and admins.

A job writes it to the work directory, where untrusted code can write, too. So it is read as a regular file with a size
limit, and its content is not trusted.
"""

from __future__ import annotations

import logging
import os
import stat

from draupnir_helper import btrfs, files, layout, subvolumes
from draupnir_helper.jobs.reports import PRIVATE_MAX_BYTES, PRIVATE_NAME
from draupnir_helper.layout import Place

log = logging.getLogger(__name__)


def keep(root: int, image_id: int) -> None:
    """Save the job's error text beside the upload, replacing an earlier one; without an upload do nothing."""
    found = _left_by_job(root, image_id) if subvolumes.exists(root, Place.UPLOADS, image_id) else b""
    with btrfs.directory(Place.UPLOADS, root) as parent:
        if not found:
            files.remove_in(parent, layout.error_text_name(image_id))
            return
        try:
            files.write_in(parent, layout.error_text_name(image_id), found)
        except OSError as error:
            # The disk may be full, perhaps the cause of the failure, which is still recorded.
            log.warning("the error text of image %s could not be saved: %s", image_id, error.strerror)


def read(root: int, image_id: int) -> str | None:
    """Return the saved text, or None."""
    with btrfs.directory(Place.UPLOADS, root) as parent:
        try:
            return _read(parent, layout.error_text_name(image_id)).decode(errors="replace")
        except FileNotFoundError:
            return None


def remove(root: int, image_id: int) -> None:
    """Remove the text; do nothing if there is none."""
    with btrfs.directory(Place.UPLOADS, root) as parent:
        files.remove_in(parent, layout.error_text_name(image_id))


def _left_by_job(root: int, image_id: int) -> bytes:
    try:
        with subvolumes.opened(root, Place.WORK, image_id) as work:
            return _read(work, PRIVATE_NAME)
    except OSError:
        return b""  # missing, or not a regular file


def _read(directory: int, name: str) -> bytes:
    # O_NONBLOCK: an open of a named pipe would block.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=directory), "rb") as file:
        return file.read(PRIVATE_MAX_BYTES) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
