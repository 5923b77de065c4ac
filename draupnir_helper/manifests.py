"""Beside each published image and each instance, a file that says what it is, for the day the metadata is lost."""

from __future__ import annotations

import os

from pydantic import BaseModel

from draupnir_helper import btrfs, layout
from draupnir_helper.layout import Place

FIELDS = {
    Place.IMAGES: {"image_id", "postgres_major", "backed_up_at", "created_at"},
    Place.INSTANCES: {"instance_id", "image_id", "owner", "port", "created_at"},
}


def write(root: int, place: Place, some_id: int, request: BaseModel) -> None:
    """Store what the request says of the thing; the places belong to root, so no link can stand in the way."""
    name = layout.manifest_name(some_id)
    new = f"{layout.NEW_PREFIX}{name}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with btrfs.directory(place, root) as parent:
        descriptor = os.open(new, flags, 0o600, dir_fd=parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(request.model_dump_json(include=FIELDS[place]) + "\n")
            os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            os.unlink(new, dir_fd=parent)
            raise


def remove(root: int, place: Place, some_id: int) -> None:
    """Remove the file; an absent one is fine."""
    with btrfs.directory(place, root) as parent:
        try:
            os.unlink(layout.manifest_name(some_id), dir_fd=parent)
        except FileNotFoundError:
            return
