"""Lists events of images and instances; the stores write them."""

from __future__ import annotations

from draupnir.callers import Caller
from draupnir.errors import Forbidden
from draupnir.lifecycles import Event, Kind
from draupnir.operations.context import Context

MOST_LISTED = 100
MOST_SHOWN = 5  # the answer about an instance has this many


async def list_own(context: Context, caller: Caller, after: int | None) -> list[Event]:
    """Return events of the caller's instances and actions: the first ones after an id, or the last ones."""
    return await _list(context, caller.name, after)


async def list_everybodys(context: Context, caller: Caller, after: int | None) -> list[Event]:
    """Return events of all users: the first ones after an id, or the last ones. Raises Forbidden."""
    if caller.confined_to is not None:
        raise Forbidden("Only admins can list the events of all users; omit `all` to list yours.")
    return await _list(context, None, after)


async def list_of_instance(context: Context, caller: Caller, instance_id: int) -> list[Event]:
    """Return the last events of an instance, restricted to those visible to the caller."""
    return await context.store.events.list_of(Kind.INSTANCE, instance_id, caller.confined_to, MOST_SHOWN)


async def _list(context: Context, person: str | None, after: int | None) -> list[Event]:
    if after is None:
        return await context.store.events.list_last(person, MOST_LISTED)
    return await context.store.events.list_after(after, person, MOST_LISTED)
