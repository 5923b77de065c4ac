"""Tracks ids in use on the machine, so that a new image or instance never finds foreign data under its id."""

from __future__ import annotations

from draupnir.operations.context import Context
from draupnir_helper import wire


def note(context: Context, inventory: wire.Inventory) -> None:
    """Record the ids of the inventory, except impossible ones."""
    jobs = (job.image_id for job in inventory.jobs)
    images = (found.image_id for found in inventory.images)
    units = (unit.instance_id for unit in inventory.instance_units)
    # A foreign file may have a number as its name.
    names = (name.rpartition("/")[2] for name in inventory.unknown)
    foreign = [int(name) for name in names if name.isascii() and name.isdecimal()]
    context.seen.image_ids = _possible(*inventory.uploads, *inventory.seals, *inventory.work, *images, *jobs, *foreign)
    context.seen.instance_ids = _possible(*inventory.instances, *units, *foreign)


async def of_images(context: Context) -> frozenset[int]:
    """Return the ids of images in use. Raises Unavailable."""
    if context.seen.image_ids is None:
        await _look(context)
    assert context.seen.image_ids is not None
    return context.seen.image_ids


async def of_instances(context: Context) -> frozenset[int]:
    """Return the ids of instances in use. Raises Unavailable."""
    if context.seen.instance_ids is None:
        await _look(context)
    assert context.seen.instance_ids is not None
    return context.seen.instance_ids


async def _look(context: Context) -> None:
    """Take an inventory if the reconciler has not run yet."""
    note(context, await context.helper.ask(wire.TakeInventory()))


def _possible(*found: int) -> frozenset[int]:
    return frozenset(some_id for some_id in found if some_id <= wire.MAX_ID)
