"""Keeps the texts of jobs: the full error of a failed image, beside its upload, and the report, beside the image.

A job writes the texts to the work directory, where untrusted code can write, too. They are read as regular files with
a size limit, and their content is not trusted. The error quotes raw rows and is for uploaders and admins only.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from typing import NamedTuple

from draupnir_helper import btrfs, files, layout, subvolumes
from draupnir_helper.jobs import reports, rows
from draupnir_helper.layout import Place

log = logging.getLogger(__name__)


class Text(NamedTuple):
    """A kind of text: its name in the work directory, and the place and suffix of the file beside a subvolume."""

    name: str
    place: Place
    suffix: str


ERROR = Text(reports.PRIVATE_NAME, Place.UPLOADS, layout.ERROR_TEXT_SUFFIX)
REPORT = Text(rows.NAME, Place.IMAGES, layout.REPORT_SUFFIX)
MAX_BYTES = 1024 * 1024


def keep(root: int, text: Text, image_id: int) -> None:
    """Save the job's text, replacing an earlier one; an error without an upload is not saved."""
    if _is_published(root, text, image_id):
        return
    found = _left_by_job(root, text, image_id)
    if text is ERROR and not subvolumes.exists(root, Place.UPLOADS, image_id):
        found = b""
    with btrfs.directory(text.place, root) as parent:
        if not found:
            # A report of this attempt is kept already if publishing was interrupted and starts again.
            if text is ERROR:
                files.remove_in(parent, f"{image_id}{text.suffix}")
            return
        try:
            files.write_in(parent, f"{image_id}{text.suffix}", found)
        except OSError as error:
            # The disk may be full. The failure of the job is still recorded.
            log.warning("%s%s could not be saved: %s", image_id, text.suffix, error.strerror)


def remove_from_work(root: int, text: Text, image_id: int) -> None:
    """Remove the text that the job left. A directory of that name, which only code of the data can create, stays."""
    with subvolumes.opened(root, Place.WORK, image_id) as work, suppress(IsADirectoryError):
        files.remove_in(work, text.name)


def read(root: int, text: Text, image_id: int) -> str | None:
    """Return the saved text, or None."""
    with btrfs.directory(text.place, root) as parent:
        try:
            return _read(parent, f"{image_id}{text.suffix}").decode(errors="replace")
        except FileNotFoundError:
            return None


def remove(root: int, text: Text, image_id: int) -> None:
    """Remove the text; do nothing if there is none, or if it is the report of a published image."""
    if _is_published(root, text, image_id):
        return
    with btrfs.directory(text.place, root) as parent:
        files.remove_in(parent, f"{image_id}{text.suffix}")


def _is_published(root: int, text: Text, image_id: int) -> bool:
    return text is REPORT and subvolumes.exists(root, Place.IMAGES, image_id)


def _left_by_job(root: int, text: Text, image_id: int) -> bytes:
    try:
        with subvolumes.opened(root, Place.WORK, image_id) as work:
            return _read(work, text.name)
    except OSError:
        return b""  # missing, or not a regular file


def _read(directory: int, name: str) -> bytes:
    # O_NONBLOCK: an open of a named pipe would block.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=directory), "rb") as file:
        return file.read(MAX_BYTES) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
