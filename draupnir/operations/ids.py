"""Which ids are taken on the machine, so that nothing new gets one: it would find there what is not its own."""

from __future__ import annotations

from draupnir.operations.context import Context
from draupnir_helper import wire


def note(context: Context, inventory: wire.Inventory) -> None:
    """Remember what has an id. Ids that nothing can have are left out."""
    jobs = (job.image_id for job in inventory.jobs)
    images = (found.image_id for found in inventory.images)
    units = (unit.instance_id for unit in inventory.instance_units)
    # A foreign file may have an id for its name.
    names = (name.rpartition("/")[2] for name in inventory.unknown)
    foreign = [int(name) for name in names if name.isascii() and name.isdecimal()]
    context.seen.image_ids = _possible(*inventory.uploads, *inventory.seals, *inventory.work, *images, *jobs, *foreign)
    context.seen.instance_ids = _possible(*inventory.instances, *units, *foreign)


async def of_images(context: Context) -> frozenset[int]:
    """The ids of images that are taken. Raises Unavailable."""
    if context.seen.image_ids is None:
        await _look(context)
    assert context.seen.image_ids is not None
    return context.seen.image_ids


async def of_instances(context: Context) -> frozenset[int]:
    """The ids of instances that are taken. Raises Unavailable."""
    if context.seen.instance_ids is None:
        await _look(context)
    assert context.seen.instance_ids is not None
    return context.seen.instance_ids


async def _look(context: Context) -> None:
    """Before the first pass of the reconciler nobody has looked yet."""
    note(context, await context.helper.ask(wire.TakeInventory()))


def _possible(*found: int) -> frozenset[int]:
    return frozenset(some_id for some_id in found if some_id <= wire.MAX_ID)
