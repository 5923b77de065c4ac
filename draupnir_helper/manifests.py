"""The manifest: a file beside each published image and each instance that describes it and its creation.

The manifest is used if the metadata are lost, and for facts that the helper must not take from the daemon.
"""

from __future__ import annotations

import json
import os
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from draupnir_helper import btrfs, files, layout
from draupnir_helper.layout import Place
from draupnir_helper.settings import LibraryName
from draupnir_helper.wire import AssignInstance, Ceiling

FIELDS = {
    Place.IMAGES: {"image_id", "postgres_major", "backed_up_at", "created_at"},
    Place.INSTANCES: {"instance_id", "image_id", "owner", "port", "created_at", "direct", "ceiling"},
}
_MAX_BYTES = 64 * 1024
FactsT = TypeVar("FactsT", bound="Facts")


class Facts(BaseModel):
    """Facts that the helper itself knows about the data of an image, and of its instances.

    `any_role` is true if the job that finalised the image locks out superusers, so that all other roles may log in.
    `preload_libraries` are the libraries that the data need and the operator allows. `proved` is true if that job found
    that no file has a value that the script removed. `superuser` is true for an instance whose role draupnir is one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    any_role: bool = False
    preload_libraries: list[LibraryName] = []
    proved: bool = False
    superuser: bool = False


class Instance(Facts):
    """The facts, and the parameters with which an instance was created. Unknown ones are None."""

    ceiling: Ceiling | None = None
    direct: bool = False


def write(root: int, place: Place, some_id: int, request: BaseModel, facts: Facts) -> None:
    """Store the fields of the request. Only root can write to the places, so the path contains no link."""
    values = request.model_dump(mode="json", include=FIELDS[place])
    _write(root, place, some_id, values | facts.model_dump(include=set(Facts.model_fields)))


def assign(root: int, request: AssignInstance) -> None:
    """Store the new owner of an instance; its other parameters stay."""
    before = _read(root, Place.INSTANCES, request.instance_id)
    after = request.model_dump(mode="json", include=FIELDS[Place.INSTANCES])
    _write(root, Place.INSTANCES, request.instance_id, before | after)


def read(root: int, instance_id: int) -> Instance:
    """Return the parameters with which the instance was created."""
    return _parsed(Instance, _read(root, Place.INSTANCES, instance_id))


def facts(root: int, image_id: int) -> Facts:
    """Return the facts about the image."""
    return _parsed(Facts, _read(root, Place.IMAGES, image_id))


def remove(root: int, place: Place, some_id: int) -> None:
    """Remove the file; do nothing if it does not exist."""
    with btrfs.directory(place, root) as parent:
        files.remove_in(parent, layout.manifest_name(some_id))


def _parsed(model: type[FactsT], values: dict[str, Any]) -> FactsT:
    try:
        return model.model_validate_json(json.dumps(values))
    except ValidationError:
        return model()


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
