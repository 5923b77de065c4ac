"""Everything that exists under our names, on disk and in systemd, for the daemon to hold against its intents."""

from __future__ import annotations

import re

from draupnir_helper import postgres, storage, subvolumes, units, wire
from draupnir_helper.images import job_state
from draupnir_helper.layout import Place
from draupnir_helper.wire import JobKind

_UNIT = re.compile(r"draupnir-(extract|finalise|instance|port)-([1-9][0-9]{0,8})\.(service|socket)")


def inspect() -> wire.Inspection:
    """What the machine offers."""
    return wire.Inspection(
        protocol=wire.PROTOCOL,
        storage=storage.inspect(),
        postgres_majors=postgres.installed_majors(),
        systemd_version=units.version(),
    )


def take_inventory() -> wire.Inventory:
    """Ids by place, the state of each unit, and names that are not ours to explain."""
    with storage.root() as root:
        found = {place: subvolumes.ids(root, place) for place in Place}
        images = [(image_id, subvolumes.find(root, Place.IMAGES, image_id)) for image_id in found[Place.IMAGES][0]]
        trash = subvolumes.trash_size(root)
    jobs, states = _units()
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
        instance_units=states,
        jobs=jobs,
        trash=trash,
        unknown=[name for _, unknown in found.values() for name in unknown],
    )


def _units() -> tuple[list[wire.Job], list[wire.InstanceState]]:
    jobs: list[wire.Job] = []
    listening: dict[int, bool] = {}
    servers: dict[int, str] = {}
    for unit in units.find("draupnir-*-[0-9]*.service", "draupnir-port-[0-9]*.socket"):
        match = _UNIT.fullmatch(unit.name)
        if match is None:
            continue
        kind, some_id, suffix = match[1], int(match[2]), match[3]
        if kind in set(JobKind):
            job = job_state(JobKind(kind), some_id)
            if job.state is not wire.JobState.ABSENT:
                jobs.append(job)
        elif kind == "instance":
            servers[some_id] = unit.active
        elif suffix == "socket":
            listening[some_id] = unit.active == "active"
    states = [
        wire.InstanceState(
            instance_id=some_id, listening=listening.get(some_id, False), postgres=servers.get(some_id, "inactive")
        )
        for some_id in sorted(listening.keys() | servers.keys())
    ]
    return jobs, states
