"""The disk watch: enforces the ceilings of instances, and stops the largest writers before the disk is full.

It also freezes uploads then, and finalise.py stops its jobs.

At its ceiling an instance becomes read-only by default; above it, a reserve is left for WAL. If Postgres has used up
the reserve, it is granted a second time, so that Postgres can start and data can be deleted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from draupnir import audit
from draupnir.errors import DraupnirError, NoRoom, StorageMissing
from draupnir.models import Fullness, InstanceStatus
from draupnir.operations import parameters
from draupnir.operations.context import Context
from draupnir.operations.tasks import Subject, Work
from draupnir_helper import wire

INTERVAL_S = 1.0
# An instance may write again below this fraction of its ceiling.
NOT_FULL_ANY_MORE = 0.9
# Postgres writes this much without client activity.
UNREMARKABLE_BYTES = 16 * 1024 * 1024

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Watch:
    """The written bytes of each instance at the last check before the disk became low, and whether uploads are frozen.

    `frozen` is None until the first check.
    """

    before: Mapping[int, int] = field(default_factory=dict)
    frozen: bool | None = None
    fault: str = ""


async def run(context: Context) -> None:
    """Check once a second, until cancelled."""
    watch = Watch()
    while True:
        try:
            await look_once(context, watch)
            watch.fault = ""
        except DraupnirError as error:
            if watch.fault != error.detail:
                log.warning("the disk watch failed and continues: %s", error.detail)
            watch.fault = error.detail
        await asyncio.sleep(INTERVAL_S)


async def look_once(context: Context, watch: Watch) -> None:
    """Check all instances and the disk once. Raises Unavailable, without changes, if they cannot be observed."""
    observed = await context.helper.ask(wire.ObserveInstances())
    context.seen.room = observed.room
    running = await context.store.ceilings.list_running()
    written = {each.instance_id: each.size_bytes for each in observed.written}
    failed = {unit.instance_id for unit in observed.instance_units if unit.postgres == "failed"}
    for instance_id, max_bytes, known in running:
        if max_bytes is not None and instance_id in written:
            now = judge(known, written[instance_id], max_bytes, failed=instance_id in failed)
            if now != known:
                begin_limiting(context, instance_id, now)
    if observed.room is None:
        return
    if observed.room.free_bytes >= observed.room.low_bytes:
        watch.before = written
        await _let_uploads(context, watch, frozen=False)
    elif is_critical(observed.room):
        await _let_uploads(context, watch, frozen=True)
        running_ids = {instance_id for instance_id, _, _ in running}
        for instance_id, since_bytes in writers(watch.before, written, running_ids).items():
            begin_stopping(context, instance_id, since_bytes, observed.room)


def judge(known: Fullness, written_bytes: int, max_bytes: int, *, failed: bool) -> Fullness:
    """Return whether an instance is full. A full one stays full until it is clearly below its ceiling."""
    if written_bytes < max_bytes * (NOT_FULL_ANY_MORE if known.full else 1):
        return Fullness()
    return Fullness(full=True, reserve_granted=known.reserve_granted or failed)


def writers(before: Mapping[int, int], now: Mapping[int, int], running: set[int]) -> dict[int, int]:
    """Return the running instances that wrote at least half as much as the largest writer, with their bytes."""
    since = {each: now[each] - before.get(each, 0) for each in running if each in now}
    most = max(since.values(), default=0)
    return {each: size for each, size in since.items() if size > UNREMARKABLE_BYTES and size * 2 >= most}


def begin_limiting(context: Context, instance_id: int, fullness: Fullness) -> None:
    """Apply the current write limit of an instance. After a failure the next check tries again."""
    subject = Subject("instance", instance_id)
    context.tasks.start(Work.LIMIT, subject, lambda: _limit(context, instance_id, fullness))


def begin_stopping(context: Context, instance_id: int, since_bytes: int, room: wire.Room) -> None:
    """Stop an instance that writes while the disk is almost full."""
    reason = (
        f"The data disk had {room.free_bytes >> 20} MiB left, and this instance had written {since_bytes >> 20} MiB"
        " since the disk ran low."
    )
    with audit.for_reason("disk_full"):
        subject = Subject("instance", instance_id)
        context.tasks.start(Work.STOP, subject, lambda: _stop(context, instance_id, reason))


async def stop_again(context: Context, instance_id: int) -> None:
    """Stop running units of an instance that should be stopped."""
    await context.tasks.run(
        Work.STOP_AGAIN, Subject("instance", instance_id), lambda: _stop_again(context, instance_id)
    )


async def require_room(context: Context) -> None:
    """Raise NoRoom while the disk is low, and StorageMissing or Unavailable if its space is unknown."""
    if short := await shortage(context, (await room(context)).low_bytes):
        raise NoRoom(
            f"The data disk has {short.free_bytes >> 20} MiB free, and the last {short.low_bytes >> 20} MiB are"
            " reserved for existing data; destroy instances or images, or ask the operator for a larger disk."
        )


async def room(context: Context) -> wire.Room:
    """Return the last observed free space. Raises StorageMissing, Unavailable."""
    if context.seen.room is None:
        context.seen.room = (await context.helper.ask(wire.ObserveInstances())).room
    if context.seen.room is None:
        raise StorageMissing("The data filesystem is not mounted correctly; run `draupnir doctor` on the server.")
    return context.seen.room


async def shortage(context: Context, least_bytes: int) -> wire.Room | None:
    """Return the free space if it is below `least_bytes`, or None. Raises StorageMissing, Unavailable."""
    if (await room(context)).free_bytes >= least_bytes:
        return None
    context.seen.room = None
    found = await room(context)
    return found if found.free_bytes < least_bytes else None


def is_critical(found: wire.Room) -> bool:
    """Return whether instances that write much have to be stopped."""
    return found.free_bytes < found.critical_bytes


async def _let_uploads(context: Context, watch: Watch, *, frozen: bool) -> None:
    """Freeze or unfreeze uploads, through their limits, because sftp does not check the disk."""
    if watch.frozen is not frozen:
        await context.helper.ask(wire.LimitUploads(frozen=frozen))
        watch.frozen = frozen


async def _limit(context: Context, instance_id: int, fullness: Fullness) -> None:
    instance = await context.store.instances.get(instance_id)
    if instance is None or instance.status is not InstanceStatus.RUNNING or instance.shape.max_bytes is None:
        return
    # The metadata record this afterwards. Until then, the next check does the same again.
    await context.helper.ask(
        wire.LimitInstance(
            instance_id=instance_id,
            ceiling=ceiling_of(instance.shape.max_bytes, fullness),
            parameters=parameters.of_instance(instance),
        )
    )
    await context.store.ceilings.note_fullness(instance_id, fullness)
    log.info("instance %s: %s", instance_id, fullness)


def ceiling_of(max_bytes: int, fullness: Fullness) -> wire.Ceiling:
    """Return the ceiling for the helper."""
    return wire.Ceiling(max_bytes=max_bytes, read_only=fullness.full, extended=fullness.reserve_granted)


async def _stop(context: Context, instance_id: int, reason: str) -> None:
    if await context.store.ceilings.stop(instance_id, reason):
        log.warning("instance %s is stopped: %s", instance_id, reason)
        await context.helper.ask(wire.CloseInstance(instance_id=instance_id))


async def _stop_again(context: Context, instance_id: int) -> None:
    instance = await context.store.instances.get(instance_id)
    if instance is not None and instance.status is InstanceStatus.STOPPED:
        await context.helper.ask(wire.CloseInstance(instance_id=instance_id))
