"""Lists everything that exists under our names, on disk and in systemd, for the daemon's reconciliation."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from draupnir_helper import filters, postgres, storage, subvolumes, units, wire
from draupnir_helper.errors import HelperError
from draupnir_helper.images import job_state
from draupnir_helper.layout import Place
from draupnir_helper.quotas import Quotas
from draupnir_helper.settings import Settings
from draupnir_helper.wire import JobKind

_JOB = re.compile(r"draupnir-(extract|finalise)-([1-9][0-9]{0,8})\.service")
_INSTANCE = re.compile(r"draupnir-(instance|instance-direct|port)-([1-9][0-9]{0,8})\.(service|socket)")

MEMINFO = Path("/proc/meminfo")


def inspect(settings: Settings) -> wire.Inspection:
    """Return storage, Postgres majors and systemd's version of the machine."""
    return wire.Inspection(
        storage=storage.inspect(settings),
        memory=memory_of(MEMINFO.read_text(encoding="ascii")),
        postgres_majors=postgres.installed_majors(),
        systemd_version=units.version(),
        filters_addresses=filters.filters_addresses(),
    )


def memory_of(meminfo: str) -> wire.Memory:
    """Parse proc_meminfo(5) to bytes."""
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in meminfo.splitlines())}
    return wire.Memory(total_bytes=kilobytes["MemTotal"] * 1024, available_bytes=kilobytes["MemAvailable"] * 1024)


def take_inventory() -> wire.Inventory:
    """Return the ids in each place, the state of each unit, and unknown names."""
    with storage.root() as root:
        found = {place: subvolumes.ids(root, place) for place in Place}
        images = [(image_id, subvolumes.find(root, Place.IMAGES, image_id)) for image_id in found[Place.IMAGES][0]]
        trash, undeletable = subvolumes.look_at_trash(root)
        idle_quota_groups = len(Quotas(root).idle())
    return wire.Inventory(
        uploads=found[Place.UPLOADS][0],
        seals=found[Place.SEALS][0],
        work=found[Place.WORK][0],
        images=[
            wire.ImageFound(image_id=image_id, uuid=image.uuid, read_only=image.read_only)
            for image_id, image in images
            if image is not None
        ],
        instances=found[Place.INSTANCES][0],
        instance_units=_instance_units(),
        jobs=_jobs(),
        trash=trash,
        undeletable=undeletable,
        idle_quota_groups=idle_quota_groups,
        unknown=[name for _, unknown in found.values() for name in unknown],
    )


def observe_instances(settings: Settings) -> wire.Observed:
    """Return the units of all instances and, if the disk is mounted, their written bytes and the free space."""
    written, room = list[wire.Written](), None
    with suppress(HelperError), storage.root() as root:
        room = storage.room(root, settings)
        found = Quotas(root).written(Place.INSTANCES)
        written = [wire.Written(instance_id=some_id, size_bytes=size_bytes) for some_id, size_bytes in found]
    return wire.Observed(instance_units=_instance_units(), written=written, room=room)


def _instance_units() -> list[wire.InstanceState]:
    """Return which ports listen, and the state of Postgres behind each. A direct Postgres itself listens."""
    listening: dict[int, bool] = {}
    servers: dict[int, str] = {}
    for unit in units.find("draupnir-instance-*[0-9].service", "draupnir-port-[0-9]*.socket"):
        match = _INSTANCE.fullmatch(unit.name)
        if match is None:
            continue
        kind, some_id = match[1], int(match[2])
        if kind == "port":
            listening[some_id] = unit.active == "active"
        else:
            servers[some_id] = units.condition(unit)
        if kind == "instance-direct":
            listening[some_id] = unit.active == "active"
    return [
        wire.InstanceState(
            instance_id=some_id, listening=listening.get(some_id, False), postgres=servers.get(some_id, "inactive")
        )
        for some_id in sorted(listening.keys() | servers.keys())
    ]


def observe_addresses() -> wire.Admissions:
    """Return the allowlist of each open port from systemd."""
    patterns = ("draupnir-port-[0-9]*.socket", "draupnir-instance-direct-[0-9]*.service")
    active = [unit.name for unit in units.find(*patterns) if unit.active == "active"]
    found = {int(match[2]): name for name in active if (match := _INSTANCE.fullmatch(name))}
    admitted = filters.admitted(*found.values())
    return wire.Admissions(
        ports=[
            wire.Admission(instance_id=some_id, addresses=admitted[name])
            for some_id, name in sorted(found.items())
            if name in admitted
        ]
    )


def _jobs() -> list[wire.Job]:
    names = [unit.name for unit in units.find("draupnir-extract-[0-9]*.service", "draupnir-finalise-[0-9]*.service")]
    found = [job_state(JobKind(match[1]), int(match[2])) for match in map(_JOB.fullmatch, names) if match]
    return [job for job in found if job.state is not wire.JobState.ABSENT]
