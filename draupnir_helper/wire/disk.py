"""The requests about the machine and its data disk: what there is of either, and the trash."""

from __future__ import annotations

from typing import ClassVar, Literal

from draupnir_helper.wire.models import Request, Wire


class Room(Wire):
    """How much can still be written to the data filesystem, its promises to instances and the host's disk included.

    Below `low_bytes` the daemon makes nothing new. Below `critical_bytes` it stops the instances that write most.
    `max_instance_bytes`: the highest ceiling of an instance, and the default.
    """

    size_bytes: int
    free_bytes: int
    low_bytes: int
    critical_bytes: int
    max_instance_bytes: int


class Storage(Wire):
    """The btrfs filesystem that holds the data; `missing_mount_options` names what it must still be mounted with."""

    filesystem_id: str
    missing_mount_options: list[str]
    simple_quotas: bool
    room: Room
    embedded: bool


class Memory(Wire):
    """The machine's memory, as in proc_meminfo(5): the total, and what is available without swapping."""

    total_bytes: int
    available_bytes: int


class Inspection(Wire):
    """What the helper found; `storage` is absent when the data filesystem is not there.

    `filters_addresses`: whether systemd and the kernel can filter the addresses of a port. If not, systemd reports
    no error.
    """

    storage: Storage | None
    memory: Memory
    postgres_majors: list[int]
    systemd_version: str
    filters_addresses: bool


class Inspect(Request[Inspection]):
    """Return what the machine offers: storage, Postgres majors, systemd."""

    op: Literal["inspect"] = "inspect"


class Trash(Wire):
    """How many entries are left in the trash."""

    left: int


class EmptyTrash(Request[Trash]):
    """Delete the contents of the trash, nested subvolumes included."""

    deadline_s: ClassVar[float] = 600
    op: Literal["empty_trash"] = "empty_trash"
