"""The watch over the disk: holds instances to their ceilings, and stops what writes most before the disk is full.

Uploads do not grow any more then, and finalise.py gives up its jobs.

At its ceiling an instance becomes read-only by default, and has a reserve for its log above it. Where Postgres
has met the end of that reserve, it is granted once more, so that it can start and be cleared out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from draupnir import audit
from draupnir.errors import DraupnirError, NoRoom, StorageMissing
from draupnir.models import Fullness, InstanceStatus
from draupnir.operations.context import Context
from draupnir.operations.tasks import Subject, Work
from draupnir_helper import wire

INTERVAL_S = 1.0
# Of its ceiling; below that an instance may write again.
NOT_FULL_ANY_MORE = 0.9
# Postgres writes this much without any request.
UNREMARKABLE_BYTES = 16 * 1024 * 1024

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Watch:
    """What all had written when the disk ran low, or at the last look while it has not; and whether uploads may grow,
    None while that is not known.
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
                log.warning("the disk is not watched: %s", error.detail)
            watch.fault = error.detail
        await asyncio.sleep(INTERVAL_S)


async def look_once(context: Context, watch: Watch) -> None:
    """One look at all instances and the disk. Raises Unavailable, having done nothing, when it cannot see."""
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
    """Whether an instance is full now: from its ceiling on, until it has come down well below it."""
    if written_bytes < max_bytes * (NOT_FULL_ANY_MORE if known.full else 1):
        return Fullness()
    return Fullness(full=True, reserve_granted=known.reserve_granted or failed)


def writers(before: Mapping[int, int], now: Mapping[int, int], running: set[int]) -> dict[int, int]:
    """Who wrote most of those that run, at least half as much as the first, and how many bytes each."""
    since = {each: now[each] - before.get(each, 0) for each in running if each in now}
    most = max(since.values(), default=0)
    return {each: size for each, size in since.items() if size > UNREMARKABLE_BYTES and size * 2 >= most}


def begin_limiting(context: Context, instance_id: int, fullness: Fullness) -> None:
    """Have an instance keep to what it may write now; tried again at the next look if it cannot be done."""
    subject = Subject("instance", instance_id)
    context.tasks.start(Work.LIMIT, subject, lambda: _limit(context, instance_id, fullness))


def begin_stopping(context: Context, instance_id: int, since_bytes: int, room: wire.Room) -> None:
    """Stop an instance that writes while there is next to no room."""
    reason = (
        f"The data disk had {room.free_bytes >> 20} MiB left, and this instance had written {since_bytes >> 20} MiB"
        " since it ran low."
    )
    with audit.for_reason("disk_full"):
        subject = Subject("instance", instance_id)
        context.tasks.start(Work.STOP, subject, lambda: _stop(context, instance_id, reason))


async def stop_again(context: Context, instance_id: int) -> None:
    """Stop what runs of an instance that is meant to be stopped."""
    await context.tasks.run(
        Work.STOP_AGAIN, Subject("instance", instance_id), lambda: _stop_again(context, instance_id)
    )


async def require_room(context: Context) -> None:
    """Nothing new is made while the disk is low. Raises NoRoom, StorageMissing, Unavailable."""
    if short := await shortage(context, (await room(context)).low_bytes):
        raise NoRoom(
            f"The data disk is full but for {short.free_bytes >> 20} MiB, and the last {short.low_bytes >> 20} MiB are"
            " reserved for existing data; destroy instances or images, or ask the operator for a larger disk."
        )


async def room(context: Context) -> wire.Room:
    """The room on the disk as last seen. Raises StorageMissing, Unavailable."""
    if context.seen.room is None:
        context.seen.room = (await context.helper.ask(wire.ObserveInstances())).room
    if context.seen.room is None:
        raise StorageMissing("The data filesystem is not mounted, or its mount options are wrong.")
    return context.seen.room


async def shortage(context: Context, least_bytes: int) -> wire.Room | None:
    """The room, if it is less than that now and not only when last seen. Raises StorageMissing, Unavailable."""
    if (await room(context)).free_bytes >= least_bytes:
        return None
    context.seen.room = None
    found = await room(context)
    return found if found.free_bytes < least_bytes else None


def is_critical(found: wire.Room) -> bool:
    """Whether what writes is being stopped."""
    return found.free_bytes < found.critical_bytes


async def _let_uploads(context: Context, watch: Watch, *, frozen: bool) -> None:
    """An upload that takes the last of the disk can be stopped by its limit alone; sftp knows nothing of it."""
    if watch.frozen is not frozen:
        await context.helper.ask(wire.LimitUploads(frozen=frozen))
        watch.frozen = frozen


async def _limit(context: Context, instance_id: int, fullness: Fullness) -> None:
    instance = await context.store.instances.get(instance_id)
    if instance is None or instance.status is not InstanceStatus.RUNNING or instance.shape.max_bytes is None:
        return
    # Written down when it is done: until then the next look finds the same to do.
    await context.helper.ask(
        wire.LimitInstance(instance_id=instance_id, ceiling=ceiling_of(instance.shape.max_bytes, fullness))
    )
    await context.store.ceilings.note_fullness(instance_id, fullness)
    log.info("instance %s: %s", instance_id, fullness)


def ceiling_of(max_bytes: int, fullness: Fullness) -> wire.Ceiling:
    """What the helper is asked to hold an instance to."""
    return wire.Ceiling(max_bytes=max_bytes, read_only=fullness.full, extended=fullness.reserve_granted)


async def _stop(context: Context, instance_id: int, reason: str) -> None:
    if await context.store.ceilings.stop(instance_id, reason):
        log.warning("instance %s is stopped: %s", instance_id, reason)
        await context.helper.ask(wire.CloseInstance(instance_id=instance_id))


async def _stop_again(context: Context, instance_id: int) -> None:
    instance = await context.store.instances.get(instance_id)
    if instance is not None and instance.status is InstanceStatus.STOPPED:
        await context.helper.ask(wire.CloseInstance(instance_id=instance_id))
