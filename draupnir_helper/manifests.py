"""The manifest: a file beside each published image and each instance that describes it and its creation.

The manifest is used if the metadata are lost, and for facts that the helper must not take from the daemon.
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
    """The parameters with which an instance was created. Unknown ones are None.

    `any_role` is true if the job that finalised its image locks out superusers, so that all other roles may log in.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    ceiling: Ceiling | None = None
    direct: bool = False
    any_role: bool = False


def write(root: int, place: Place, some_id: int, request: BaseModel, *, any_role: bool) -> None:
    """Store the fields of the request. Only root can write to the places, so the path contains no link."""
    _write(root, place, some_id, request.model_dump(mode="json", include=FIELDS[place]) | {"any_role": any_role})


def assign(root: int, request: AssignInstance) -> None:
    """Store the new owner of an instance; its other parameters stay."""
    before = _read(root, Place.INSTANCES, request.instance_id)
    after = request.model_dump(mode="json", include=FIELDS[Place.INSTANCES])
    _write(root, Place.INSTANCES, request.instance_id, before | after)


def read(root: int, instance_id: int) -> Instance:
    """Return the parameters with which the instance was created."""
    try:
        return Instance.model_validate_json(json.dumps(_read(root, Place.INSTANCES, instance_id)))
    except ValidationError:
        return Instance()


def admits_any_role(root: int, image_id: int) -> bool:
    """Return whether other roles than draupnir may log in to instances of the image."""
    return _read(root, Place.IMAGES, image_id).get("any_role") is True


def remove(root: int, place: Place, some_id: int) -> None:
    """Remove the file; do nothing if it does not exist."""
    with btrfs.directory(place, root) as parent:
        files.remove_in(parent, layout.manifest_name(some_id))


def _read(root: int, place: Place, some_id: int) -> dict[str, Any]:
    with btrfs.directory(place, root) as parent:
        try:
            descriptor = os.open(layout.manifest_name(some_id), os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
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
