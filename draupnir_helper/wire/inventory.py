"""The requests that list everything under our names, on disk and in systemd."""

from __future__ import annotations

from typing import Literal

from draupnir_helper.wire.disk import Room
from draupnir_helper.wire.instances import InstanceState
from draupnir_helper.wire.jobs import Job
from draupnir_helper.wire.models import Request, Wire


class ImageFound(Wire):
    """A published image on disk."""

    image_id: int
    uuid: str
    read_only: bool


class Inventory(Wire):
    """Everything that exists: ids of subvolumes by place, unit states, and entries with unknown names.

    `undeletable`: entries of the trash that the last attempt could not delete, each with the reason.
    """

    uploads: list[int]
    seals: list[int]
    work: list[int]
    images: list[ImageFound]
    instances: list[int]
    instance_units: list[InstanceState]
    jobs: list[Job]
    trash: int
    undeletable: list[str]
    idle_quota_groups: int
    unknown: list[str]


class TakeInventory(Request[Inventory]):
    """Return everything that exists on disk and in systemd under our names."""

    op: Literal["take_inventory"] = "take_inventory"


class Written(Wire):
    """The bytes that an instance occupies beyond its image."""

    instance_id: int
    size_bytes: int


class Observed(Wire):
    """The units of instances, their written bytes and the free space; unknown values are missing."""

    instance_units: list[InstanceState]
    written: list[Written]
    room: Room | None


class ObserveInstances(Request[Observed]):
    """Return the units of all instances, and the free space; cheap enough to call once a second."""

    op: Literal["observe_instances"] = "observe_instances"
