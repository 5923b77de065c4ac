"""The requests for what exists on disk and in systemd under our names."""

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
    """What exists: ids of subvolumes by place, unit states, and entries whose names are not ours to explain.

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
    """How many bytes an instance has written that are still there."""

    instance_id: int
    size_bytes: int


class Observed(Wire):
    """The units of instances, what all instances have written, and the room, as far as they are known."""

    instance_units: list[InstanceState]
    written: list[Written]
    room: Room | None


class ObserveInstances(Request[Observed]):
    """Return the units of all instances, and the room on the disk; quick enough for once a second."""

    op: Literal["observe_instances"] = "observe_instances"
