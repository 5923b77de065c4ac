"""The warm pool: instances that are created ahead, so that a request only has to assign an owner.

The newest ready images have a few each. Like others they have a port, certificates and a Postgres, but no owner, and
they are not listed. A claim takes one and sets `vacancies`. The refill waits until no creation is running, so that
waiting callers come first. The pool is emptied if memory or disk become scarce, and it does not grow so far itself.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from draupnir.addresses import Address
from draupnir.callers import Caller
from draupnir.errors import DraupnirError, ImageNotReady, NoFreePort, NotFound
from draupnir.models import Condition, ImageStatus, Instance, InstanceStatus, Purpose
from draupnir.operations import addresses, lifecycle, observations, shapes
from draupnir.operations.context import Context
from draupnir.operations.tasks import Work

INTERVAL_S = 10.0
# The owner of the last creation is about to connect and needs the processor, so pause for this long.
QUIET_S = 0.5
# The pool is emptied while a smaller fraction of memory or disk is free.
LEAST_FREE = 0.1
# The pool does not grow while a smaller fraction is free, so that it does not itself cause its emptying.
ENOUGH_FREE = 0.2

log = logging.getLogger(__name__)


async def run(context: Context) -> None:
    """Maintain the pool until cancelled: after each claim, and every ten seconds."""
    while True:
        try:
            await fill(context)
        except DraupnirError as error:
            log.info("the pool is unchanged: %s", error.detail)
        with suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL_S):
                await context.vacancies.wait()
        context.vacancies.clear()


async def fill(context: Context) -> None:
    """Destroy surplus instances, create missing ones, one at a time, and wake those that should be awake.

    Raises Unavailable, NoRoom, or the error of a failed start.
    """
    wanted = await _wanted(context)
    kept = []
    shape = await shapes.usual(context) if wanted else None
    for instance in await pooled(context):
        if wanted.get(instance.image_id, 0) > 0 and instance.shape == shape:
            wanted[instance.image_id] -= 1
            kept.append(instance)
        else:
            await _give_up(context, instance)
    if context.settings.pool_awake and kept:
        found = await observations.observe(context, kept)
        for instance in kept:
            if found[instance.id].condition is Condition.ASLEEP:
                await lifecycle.wake(context, instance)
    for image_id, missing in wanted.items():
        for _ in range(missing):
            await _quiet(context)
            if await _free(context) < ENOUGH_FREE:
                return
            try:
                instance = await reserve(context, image_id)
                await lifecycle.bring_up(context, instance.id)
            except (NoFreePort, NotFound, ImageNotReady):
                # Users need the ports first, or the image was destroyed.
                break


async def claim(context: Context, caller: Caller, image_id: int, client_address: Address | None) -> Instance | None:
    """Assign an instance of the pool to the caller, and wait until it is created. Return None if the pool is empty."""
    limit = context.settings.instance_limit(caller.name)
    instance = await context.store.instances.claim(image_id, caller.name, await shapes.usual(context), limit)
    if instance is None:
        return None
    context.vacancies.set()
    instance = await lifecycle.bring_up(context, instance.id)
    if await addresses.note(context, instance, client_address):
        await addresses.apply(context, instance)
    state = await lifecycle.assign(context, instance)
    if not state.listening:
        await lifecycle.start_again(context, instance.id)
    await lifecycle.wake(context, instance)
    return instance


async def give_up_one(context: Context) -> bool:
    """Destroy an instance of the pool to free its port. Return False if the pool is empty."""
    for instance in await pooled(context):
        if await _give_up(context, instance):
            return True
    return False


async def reserve(context: Context, image_id: int) -> Instance:
    """Reserve a row and a port for an instance without an owner. Raises NotFound, ImageNotReady, NoFreePort."""
    return await lifecycle.reserve(context, image_id, lifecycle.NOBODY, Purpose.POOL, await shapes.usual(context))


async def pooled(context: Context) -> list[Instance]:
    """Return the instances of the pool, by id."""
    found = await context.store.instances.list_all()
    return [each for each in found if each.purpose is Purpose.POOL and each.status is not InstanceStatus.DESTROYING]


async def _give_up(context: Context, instance: Instance) -> bool:
    """Destroy an instance of the pool. Return False if it was claimed since."""
    given_up = await context.store.instances.give_up_pooled(instance.id)
    if given_up:
        await lifecycle.tear_down(context, instance.id)
    return given_up


async def _wanted(context: Context) -> dict[int, int]:
    """Return the target number of instances for each image."""
    if context.settings.pool_size == 0 or await _free(context) < LEAST_FREE:
        return {}
    ready = [image for image in await context.store.images.list_all() if image.status is ImageStatus.READY]
    newest = sorted(ready, key=lambda image: (image.backed_up_at, image.id), reverse=True)
    return {image.id: context.settings.pool_size for image in newest[: context.settings.pool_images]}


async def _free(context: Context) -> float:
    """Return the free fraction of memory or of the data disk, whichever is lower."""
    found = await context.helper.inspect()
    if found.storage is None:
        return 0.0
    memory_left = found.memory.available_bytes / found.memory.total_bytes
    return min(memory_left, found.storage.room.free_bytes / found.storage.room.size_bytes)


async def _quiet(context: Context) -> None:
    """Wait until no creation has been running for a moment."""
    while True:
        await asyncio.sleep(QUIET_S)
        if not context.tasks.doing(Work.CREATE_INSTANCE):
            return
