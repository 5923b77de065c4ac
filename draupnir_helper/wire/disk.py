"""The requests about the machine, its data disk and the trash."""

from __future__ import annotations

from typing import ClassVar, Literal

from draupnir_helper.wire.models import Request, Wire


class Room(Wire):
    """The free space of the data filesystem, minus the reserves for instances, and bounded by the host's disk.

    Below `low_bytes` the daemon creates nothing new. Below `critical_bytes` it stops the instances that write most.
    `max_instance_bytes`: the highest ceiling of an instance, and the default.
    """

    size_bytes: int
    free_bytes: int
    low_bytes: int
    critical_bytes: int
    max_instance_bytes: int


class Storage(Wire):
    """The btrfs filesystem of the data; `missing_mount_options` are required options that it lacks."""

    filesystem_id: str
    missing_mount_options: list[str]
    simple_quotas: bool
    room: Room
    embedded: bool


class Memory(Wire):
    """The machine's memory, as in proc_meminfo(5): the total, and the memory that is available without swapping."""

    total_bytes: int
    available_bytes: int


class Inspection(Wire):
    """The helper's findings; `storage` is None if the data filesystem is not mounted.

    `filters_addresses`: whether systemd and the kernel can filter the addresses of a port. If not, systemd reports
    no error.
    """

    storage: Storage | None
    memory: Memory
    postgres_majors: list[int]
    systemd_version: str
    filters_addresses: bool


class Inspect(Request[Inspection]):
    """Return storage, Postgres majors and systemd's version of the machine."""

    op: Literal["inspect"] = "inspect"


class Trash(Wire):
    """The number of entries that are left in the trash."""

    left: int


class EmptyTrash(Request[Trash]):
    """Delete the contents of the trash, nested subvolumes included."""

    deadline_s: ClassVar[float] = 600
    op: Literal["empty_trash"] = "empty_trash"
