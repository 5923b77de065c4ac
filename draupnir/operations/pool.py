"""The warm pool: instances made ahead, so that creating one only assigns an owner.

The newest ready images have a few each; they have a port, certificates and a Postgres like any other, belong to nobody
and are in nobody's list. A claim takes one and tells `vacancies`; the refill waits until no
creation is under way, so that waiting callers come first. Under pressure the pool is given up, and it ends where it
would make that pressure itself.
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
# After the last creation: its owner is about to connect, and needs the processor more.
QUIET_S = 0.5
# Of memory and of disk; with less than that free nothing is kept for later.
LEAST_FREE = 0.1
# With less than that nothing is added, or the pool would bring about by itself what it is given up for.
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
    """Give up what is too much, make what is missing, one at a time, and wake what is to be awake.

    Raises Unavailable, NoRoom, or what keeps an instance from starting.
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
                # Ports are for people first; and the image may be destroyed by now.
                break


async def claim(context: Context, caller: Caller, image_id: int, client_address: Address | None) -> Instance | None:
    """An instance of the pool, now the caller's; None if there is none. One still being created is waited for."""
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
    """Destroy an instance of the pool, for its port; False if there is none."""
    for instance in await pooled(context):
        if await _give_up(context, instance):
            return True
    return False


async def reserve(context: Context, image_id: int) -> Instance:
    """A row and a port for an instance that is nobody's yet. Raises NotFound, ImageNotReady, NoFreePort."""
    return await lifecycle.reserve(context, image_id, lifecycle.NOBODY, Purpose.POOL, await shapes.usual(context))


async def pooled(context: Context) -> list[Instance]:
    """The instances of the pool, by id."""
    found = await context.store.instances.list_all()
    return [each for each in found if each.purpose is Purpose.POOL and each.status is not InstanceStatus.DESTROYING]


async def _give_up(context: Context, instance: Instance) -> bool:
    """Destroy an instance of the pool; False if somebody has claimed it by now."""
    given_up = await context.store.instances.give_up_pooled(instance.id)
    if given_up:
        await lifecycle.tear_down(context, instance.id)
    return given_up


async def _wanted(context: Context) -> dict[int, int]:
    """How many instances each image is to have in the pool."""
    if context.settings.pool_size == 0 or await _free(context) < LEAST_FREE:
        return {}
    ready = [image for image in await context.store.images.list_all() if image.status is ImageStatus.READY]
    newest = sorted(ready, key=lambda image: (image.backed_up_at, image.id), reverse=True)
    return {image.id: context.settings.pool_size for image in newest[: context.settings.pool_images]}


async def _free(context: Context) -> float:
    """How much of the memory and of the data disk is free, as a share of 1, whichever is less."""
    found = await context.helper.inspect()
    if found.storage is None:
        return 0.0
    memory_left = found.memory.available_bytes / found.memory.total_bytes
    return min(memory_left, found.storage.room.free_bytes / found.storage.room.size_bytes)


async def _quiet(context: Context) -> None:
    """Until no creation has been under way for a moment."""
    while True:
        await asyncio.sleep(QUIET_S)
        if not context.tasks.doing(Work.CREATE_INSTANCE):
            return
