"""Closes the instances of revoked users, retains them, and destroys or restores them.

A restored instance gets a new authority, which invalidates its old certificates.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import partial

from draupnir import audit
from draupnir.callers import Caller
from draupnir.errors import WrongState
from draupnir.models import Instance, InstanceStatus
from draupnir.operations import authorities, instances, lifecycle
from draupnir.operations.context import Context
from draupnir.operations.tasks import Subject, Work
from draupnir_helper import wire

AT_ONCE = 8

log = logging.getLogger(__name__)


def left_of_grace(context: Context, instance: Instance) -> timedelta | None:
    """Return the remaining grace period of a closed instance, at least zero, or None if it is not closed."""
    if instance.retained is None:
        return None
    return max(timedelta(), context.settings.grace_period - timedelta(seconds=instance.retained.closed_s))


def destroy_at(context: Context, instance: Instance) -> datetime | None:
    """Return when a closed instance will be destroyed, if the service runs until then, or None if it is not closed."""
    left = left_of_grace(context, instance)
    return None if left is None else datetime.now(UTC) + left


async def close(context: Context, instance_id: int) -> None:
    """Close the port and the connections of an instance that should be closed, and stop its Postgres."""
    await context.tasks.run(Work.CLOSE, Subject("instance", instance_id), lambda: _close(context, instance_id))


async def stop_units(context: Context, instance_id: int) -> None:
    """Stop the units of an instance that has neither row nor data, because its destruction was interrupted."""
    log.warning("stopping the units of instance %s, which has neither metadata nor data", instance_id)
    request = wire.CloseInstance(instance_id=instance_id)
    await context.tasks.run(Work.STOP_UNITS, Subject("instance", instance_id), partial(context.helper.ask, request))


def begin_closing(context: Context, instance_ids: Collection[int]) -> None:
    """Close these instances in the background, a few at a time. After a failure the reconciler closes them."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def close_in_turn(instance_id: int) -> None:
        async with gate:
            await _close(context, instance_id)

    for instance_id in instance_ids:
        context.tasks.start(Work.CLOSE, Subject("instance", instance_id), partial(close_in_turn, instance_id))


async def expire(context: Context, instance: Instance) -> None:
    """Destroy an instance that was closed for the whole grace period, unless it was restored since."""
    if await context.store.retention.expire(instance.id, context.settings.grace_period.total_seconds()):
        with audit.for_reason(f"grace_over:{instance.owner}"):
            await lifecycle.tear_down(context, instance.id)


async def restore(context: Context, caller: Caller, instance_id: int, owner: str | None = None) -> Instance:
    """Open a closed instance again, with its data, for its owner or another user. An open one stays unchanged.

    Raises NotFound, WrongState, OwnerUnknown, TooManyInstances, Unavailable. If the start fails, raises its error, and
    the reconciler continues.
    """
    if not _is_restored(await instances.reached(context, caller, instance_id), owner):
        subject = Subject("instance", instance_id)
        # Requests with different new owners must not join one task.
        await context.tasks.run(
            Work.RESTORE, subject, lambda: _restore(context, instance_id, owner), variant=owner or ""
        )
    await lifecycle.start_again(context, instance_id)
    if owner is not None:
        await lifecycle.write_down_owner(context, instance_id)
    return await instances.reached(context, caller, instance_id)


def _is_restored(instance: Instance, owner: str | None) -> bool:
    """Return whether the instance is open already, for that owner. Raises WrongState if it cannot be restored."""
    if instance.status is InstanceStatus.RUNNING and owner in {None, instance.owner}:
        return True
    if instance.status is not InstanceStatus.CLOSED:
        raise WrongState(f"Instance {instance.id} is {instance.status}, and only a closed instance can be restored.")
    return False


async def take_back(context: Context, instance: Instance) -> None:
    """Open the instance of a revoked user who has signed in again with the same identity."""
    subject = Subject("instance", instance.id)
    with audit.for_reason(f"owner_is_back:{instance.owner}"):
        await context.tasks.run(Work.TAKE_BACK, subject, lambda: _take_back(context, instance.id))
        await lifecycle.start_again(context, instance.id)


async def _close(context: Context, instance_id: int) -> None:
    instance = await context.store.instances.get(instance_id)
    if instance is not None and instance.status is InstanceStatus.CLOSED:
        await context.helper.ask(wire.CloseInstance(instance_id=instance_id))


async def _restore(context: Context, instance_id: int, owner: str | None) -> None:
    instance = await context.store.instances.get(instance_id)
    # Other work may have opened or destroyed it before this task started.
    if instance is None or _is_restored(instance, owner):
        return
    # A port that still listens would keep the old authority.
    await context.helper.ask(wire.CloseInstance(instance_id=instance.id))
    limit = None if owner is None else context.settings.instance_limit(owner)
    if not await context.store.retention.reopen(instance.id, authorities.create(context, instance.id), owner, limit):
        raise WrongState(
            f"Instance {instance.id} is no longer closed; see `draupnir-client instances show {instance.id}`."
        )
    if owner is not None:
        audit.record_work(audit.origin.get(), f"hand instance {instance.id} to {owner}", None)


async def _take_back(context: Context, instance_id: int) -> None:
    await context.helper.ask(wire.CloseInstance(instance_id=instance_id))
    await context.store.retention.take_back(instance_id, authorities.create(context, instance_id))
