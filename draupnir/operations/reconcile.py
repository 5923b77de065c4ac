"""The reconciler: compares the machine with the metadata, and finishes or rolls back interrupted work.

It uses the same tasks as the operations, so it never runs beside one. It never deletes unknown data. It stops units
that have neither data nor metadata.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from draupnir.errors import DraupnirError
from draupnir.models import Image, ImageStatus, Instance, InstanceStatus, Purpose
from draupnir.operations import addresses, disk, finalise, ids, images, lifecycle, retention, trash
from draupnir.operations.context import Context
from draupnir.operations.tasks import Subject
from draupnir_helper import wire

INTERVAL_S = 10.0
# At most this many repairs run at the same time, because after a reboot every instance has to start.
AT_ONCE = 8

log = logging.getLogger(__name__)

Repair = Callable[[], Awaitable[object]]


class Complaints:
    """The last list of problems without an automatic repair; each is logged only when it appears."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def replace(self, found: set[str]) -> None:
        """Replace the list."""
        for complaint in sorted(found - self._known):
            log.error("%s", complaint)
        self._known = found


async def run(context: Context) -> None:
    """Reconcile at once and then every ten seconds, until cancelled."""
    complaints = Complaints()
    filters_wrong = True  # the daemon may have been restarted with another configuration
    while True:
        try:
            await reconcile_once(context, complaints)
            await context.store.events.prune()
            if filters_wrong or context.settings.enable_ip_whitelisting:
                await addresses.reconcile_once(context)
                filters_wrong = False
        except DraupnirError as error:
            complaints.replace({error.detail})
        await asyncio.sleep(INTERVAL_S)


async def reconcile_once(context: Context, complaints: Complaints | None = None) -> None:
    """Run one pass. Start long repairs (a finalise, the trash) without waiting for them.

    Raises Unavailable, without changes, if the metadata or the helper do not answer.
    """
    before = await _rows(context)
    inventory = await context.helper.ask(wire.TakeInventory())
    ids.note(context, inventory)
    after = await _rows(context)
    # A row that changed during the inventory is being worked on; the next pass judges it.
    rows = {subject: row for subject, row in after.items() if before.get(subject) == row}
    idle = {subject: row for subject, row in rows.items() if not context.tasks.busy(subject)}

    known = before.keys() | after.keys()
    unexplained = _unexplained(inventory, known)
    found = {*map(_complaint, unexplained), *(_foreign(name) for name in inventory.unknown)}
    found.update(_undeletable(entry) for entry in inventory.undeletable)
    repairs: list[Repair] = []
    for row in idle.values():
        if isinstance(row, Image):
            found.update(_image_complaints(row, inventory))
            repairs.extend(_image_repairs(context, row, inventory))
        else:
            found.update(_instance_complaints(row, inventory))
            repairs.extend(_instance_repairs(context, row, after, inventory))
    repairs += [
        partial(retention.stop_units, context, subject.id)
        for subject in _mere_units(inventory) - known
        if not context.tasks.busy(subject)
    ]
    if complaints is not None:
        complaints.replace(found)
    if inventory.trash or inventory.idle_quota_groups:
        trash.empty(context)
    gate = asyncio.Semaphore(AT_ONCE)
    # The tasks have logged their failures; a failed repair must not prevent the others.
    await asyncio.gather(*(_attempt(gate, repair) for repair in repairs), return_exceptions=True)


async def _rows(context: Context) -> dict[Subject, Image | Instance]:
    # Read instances first: a trial is stale if its image, read later, is not finalising.
    found: list[tuple[str, Image | Instance]] = []
    found += [("instance", each) for each in await context.store.instances.list_all()]
    found += [("image", each) for each in await context.store.images.list_all()]
    return {Subject(kind, each.id): each for kind, each in found}


async def _attempt(gate: asyncio.Semaphore, repair: Repair) -> None:
    async with gate:
        await repair()


def _image_repairs(context: Context, image: Image, inventory: wire.Inventory) -> Iterator[Repair]:
    published = any(found.image_id == image.id for found in inventory.images)
    left_over = image.id in {*inventory.seals, *inventory.work, *(job.image_id for job in inventory.jobs)}
    match image.status:
        case ImageStatus.AWAITING_UPLOAD | ImageStatus.FAILED:
            if image.id not in inventory.uploads:
                yield partial(images.make_upload, context, image.id)
            if left_over or published:
                yield partial(finalise.clear_up, context, image.id)
        case ImageStatus.FINALISING:
            yield partial(_take_up, context, image)
        case ImageStatus.READY:
            if published and (left_over or image.id in inventory.uploads):
                yield partial(finalise.clear_up, context, image.id)
        case ImageStatus.DESTROYING:
            yield partial(images.tear_down, context, image.id)


def _image_complaints(image: Image, inventory: wire.Inventory) -> Iterator[str]:
    if image.status is ImageStatus.READY:
        snapshot = next((found for found in inventory.images if found.image_id == image.id), None)
        if snapshot is None:
            yield f"Image {image.id} is ready, but its snapshot is not on the disk; destroy it, or restore the disk."
        elif not snapshot.read_only:
            yield f"The snapshot of image {image.id} is writable; it was changed by hand. Destroy the image."


def _instance_repairs(
    context: Context, instance: Instance, rows: dict[Subject, Image | Instance], inventory: wire.Inventory
) -> Iterator[Repair]:
    image = rows.get(Subject("image", instance.image_id))
    if instance.purpose is Purpose.TRIAL and instance.status is not InstanceStatus.DESTROYING:
        if image is not None and image.status is not ImageStatus.FINALISING:
            yield partial(_end_trial, context, instance)
        return
    match instance.status:
        case InstanceStatus.CREATING:
            yield partial(lifecycle.bring_up, context, instance.id)
        case InstanceStatus.RUNNING:
            listening = {unit.instance_id for unit in inventory.instance_units if unit.listening}
            if instance.id in inventory.instances and instance.id not in listening:
                yield partial(lifecycle.start_again, context, instance.id)
        case InstanceStatus.STOPPED:
            if _is_open(instance, inventory):
                yield partial(disk.stop_again, context, instance.id)
        case InstanceStatus.CLOSED:
            yield from _closed_repairs(context, instance, inventory)
        case InstanceStatus.DESTROYING:
            yield partial(lifecycle.tear_down, context, instance.id)


def _closed_repairs(context: Context, instance: Instance, inventory: wire.Inventory) -> Iterator[Repair]:
    """Keep closed instances closed, even if somebody started a unit, until they are destroyed or restored."""
    if instance.retained is not None and instance.retained.owner_is_back:
        yield partial(retention.take_back, context, instance)
    elif not retention.left_of_grace(context, instance):
        yield partial(retention.expire, context, instance)
    elif _is_open(instance, inventory):
        yield partial(retention.close, context, instance.id)


def _is_open(instance: Instance, inventory: wire.Inventory) -> bool:
    return any(
        unit.instance_id == instance.id and (unit.listening or unit.postgres not in {"inactive", "failed"})
        for unit in inventory.instance_units
    )


def _instance_complaints(instance: Instance, inventory: wire.Inventory) -> Iterator[str]:
    kept = instance.status in {InstanceStatus.RUNNING, InstanceStatus.STOPPED, InstanceStatus.CLOSED}
    if kept and instance.id not in inventory.instances:
        yield f"The data of instance {instance.id} are not on the disk; destroy it, or restore the disk."


async def _take_up(context: Context, image: Image) -> None:
    finalise.start(context, image.id)


async def _end_trial(context: Context, instance: Instance) -> None:
    await context.store.instances.begin_destroying(instance.id)
    await lifecycle.tear_down(context, instance.id)


def _unexplained(inventory: wire.Inventory, known: set[Subject]) -> set[Subject]:
    """Return images and instances on the machine without a row."""
    image_ids = {*inventory.uploads, *inventory.seals, *inventory.work, *(it.image_id for it in inventory.images)}
    there = {Subject("image", each) for each in image_ids}
    return (there | {Subject("instance", each) for each in inventory.instances}) - known


def _mere_units(inventory: wire.Inventory) -> set[Subject]:
    """Return instances that have units but no data, which can be stopped without loss."""
    with_units = {unit.instance_id for unit in inventory.instance_units}
    return {Subject("instance", each) for each in with_units - {*inventory.instances}}


def _complaint(subject: Subject) -> str:
    return f"The {subject.kind} {subject.id} exists on the server but not in the metadata, so it is left unchanged."


def _foreign(name: str) -> str:
    return f"{name!r} on the data disk does not belong to Draupnir, so it is left unchanged."


def _undeletable(entry: str) -> str:
    return f"The trash cannot be emptied: trash/{entry}; run `draupnir doctor`."
