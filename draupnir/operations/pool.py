"""Instances made before anybody asks, so that creating one is a matter of saying whose it is.

The newest ready images have a few each; they have a port, certificates and a Postgres like any other, belong to nobody
and are in nobody's list. A claim (operations/instances.py) takes one and tells `vacancies`; the refill waits until no
creation is under way, so that whoever waits comes first. Under pressure the pool is given up, and it ends where it
would make that pressure itself.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from draupnir.errors import DraupnirError, ImageNotReady, NoFreePort, NotFound
from draupnir.models import Condition, ImageStatus
from draupnir.operations import instances
from draupnir.operations.context import Context

INTERVAL_S = 10.0
# After the last creation: its owner is about to connect, and needs the processor more.
QUIET_S = 0.5
# Of memory and of disk; with less than that free nothing is kept for later.
LEAST_FREE = 0.1
# With less than that nothing is added, or the pool would bring about by itself what it is given up for.
ENOUGH_FREE = 0.2

log = logging.getLogger(__name__)


async def run(context: Context) -> None:
    """Keep the pool as it is meant, for ever: after each claim, and every ten seconds."""
    while True:
        try:
            await fill(context)
        except DraupnirError as error:
            log.info("the pool is left as it is: %s", error.detail)
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
    habits = await instances.default_habits(context) if wanted else None
    for instance in await instances.pooled(context):
        if wanted.get(instance.image_id, 0) > 0 and instance.habits == habits:
            wanted[instance.image_id] -= 1
            kept.append(instance)
        else:
            await instances.give_up_pooled(context, instance)
    if context.settings.pool_awake and kept:
        found = await instances.observe(context, kept)
        for instance in kept:
            if found[instance.id].condition is Condition.ASLEEP:
                await instances.wake(context, instance)
    for image_id, missing in wanted.items():
        for _ in range(missing):
            await _quiet(context)
            if await _free(context) < ENOUGH_FREE:
                return
            try:
                instance = await instances.reserve_pooled(context, image_id)
                await instances.bring_up(context, instance.id)
            except (NoFreePort, NotFound, ImageNotReady):
                # Ports are for people first; and the image may have gone meanwhile.
                break


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
        if not context.tasks.doing("create"):
            return
