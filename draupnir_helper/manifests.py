"""Beside each published image and each instance, a file that says what it is, for the day the metadata is lost."""

from __future__ import annotations

from pydantic import BaseModel

from draupnir_helper import btrfs, files, layout
from draupnir_helper.layout import Place

FIELDS = {
    Place.IMAGES: {"image_id", "postgres_major", "backed_up_at", "created_at"},
    Place.INSTANCES: {"instance_id", "image_id", "owner", "port", "created_at"},
}


def write(root: int, place: Place, some_id: int, request: BaseModel) -> None:
    """Store what the request says of the thing; the places belong to root, so no link can stand in the way."""
    text = request.model_dump_json(include=FIELDS[place]) + "\n"
    with btrfs.directory(place, root) as parent:
        files.write_in(parent, layout.manifest_name(some_id), text.encode())


def remove(root: int, place: Place, some_id: int) -> None:
    """Remove the file; an absent one is fine."""
    with btrfs.directory(place, root) as parent:
        files.remove_in(parent, layout.manifest_name(some_id))
