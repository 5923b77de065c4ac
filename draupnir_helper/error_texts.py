"""All that was said of why an image failed, raw rows included: kept beside the upload, for uploaders and admins.

A job leaves it in the work directory, among files of untrusted code: it is read as a bounded regular file, and what it
says is believed by nobody.
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
    """Put the job's error text beside the upload, in place of an earlier text; without an upload nothing is kept."""
    found = _left_by_job(root, image_id) if subvolumes.exists(root, Place.UPLOADS, image_id) else b""
    with btrfs.directory(Place.UPLOADS, root) as parent:
        if not found:
            files.remove_in(parent, layout.error_text_name(image_id))
            return
        try:
            files.write_in(parent, layout.error_text_name(image_id), found)
        except OSError as error:
            # The disk may be full, which is then also why the image failed; that is recorded all the same.
            log.warning("the error text of image %s could not be saved: %s", image_id, error.strerror)


def read(root: int, image_id: int) -> str | None:
    """The text that is kept, if there is one."""
    with btrfs.directory(Place.UPLOADS, root) as parent:
        try:
            return _read(parent, layout.error_text_name(image_id)).decode(errors="replace")
        except FileNotFoundError:
            return None


def remove(root: int, image_id: int) -> None:
    """Forget the text; an absent one is fine."""
    with btrfs.directory(Place.UPLOADS, root) as parent:
        files.remove_in(parent, layout.error_text_name(image_id))


def _left_by_job(root: int, image_id: int) -> bytes:
    try:
        with subvolumes.opened(root, Place.WORK, image_id) as work:
            return _read(work, PRIVATE_NAME)
    except OSError:
        return b""  # none, or something else in its place


def _read(directory: int, name: str) -> bytes:
    # O_NONBLOCK: a named pipe in its place would be waited for.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=directory), "rb") as file:
        return file.read(PRIVATE_MAX_BYTES) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
