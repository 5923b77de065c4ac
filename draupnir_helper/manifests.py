"""Beside each published image and each instance, a file that says what it is and what it was made with.

It is for the day the metadata is lost, and for what the helper has to know without believing the daemon.
"""

from __future__ import annotations

import json
import os
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from draupnir_helper import btrfs, files, layout
from draupnir_helper.layout import Place
from draupnir_helper.wire import AssignInstance, Ceiling

FIELDS = {
    Place.IMAGES: {"image_id", "postgres_major", "backed_up_at", "created_at"},
    Place.INSTANCES: {"instance_id", "image_id", "owner", "port", "created_at", "direct", "ceiling"},
}
_MAX_BYTES = 64 * 1024


class Instance(BaseModel):
    """What an instance was made with; nothing where that is not known."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    ceiling: Ceiling | None = None
    direct: bool = False


def write(root: int, place: Place, some_id: int, request: BaseModel) -> None:
    """Store what the request says of the thing; the places belong to root, so no link can stand in the way."""
    _write(root, place, some_id, request.model_dump(mode="json", include=FIELDS[place]))


def assign(root: int, request: AssignInstance) -> None:
    """Store whose an instance is from now on; what it was made with stays."""
    before = _read(root, request.instance_id)
    after = request.model_dump(mode="json", include=FIELDS[Place.INSTANCES])
    _write(root, Place.INSTANCES, request.instance_id, before | after)


def read(root: int, instance_id: int) -> Instance:
    """What the instance was made with."""
    try:
        return Instance.model_validate_json(json.dumps(_read(root, instance_id)))
    except ValidationError:
        return Instance()


def remove(root: int, place: Place, some_id: int) -> None:
    """Remove the file; an absent one is fine."""
    with btrfs.directory(place, root) as parent:
        files.remove_in(parent, layout.manifest_name(some_id))


def _read(root: int, instance_id: int) -> dict[str, Any]:
    with btrfs.directory(Place.INSTANCES, root) as parent:
        try:
            descriptor = os.open(layout.manifest_name(instance_id), os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
        except FileNotFoundError:
            return {}
    with os.fdopen(descriptor, "rb") as file:
        try:
            found = json.loads(file.read(_MAX_BYTES))
        except ValueError:
            return {}
    return found if isinstance(found, dict) else {}


def _write(root: int, place: Place, some_id: int, values: dict[str, Any]) -> None:
    with btrfs.directory(place, root) as parent:
        files.write_in(parent, layout.manifest_name(some_id), f"{json.dumps(values)}\n".encode())
