"""Computes the shape of an instance from the request, the defaults and the operator's limits."""

from __future__ import annotations

import dataclasses

from draupnir.errors import CeilingTooHigh, DirectRefused
from draupnir.models import Network, Shape
from draupnir.operations import disk, parameters, superusers
from draupnir.operations.context import Context


async def usual(context: Context) -> Shape:
    """Return the default shape, which all instances of the pool have. Raises Unavailable."""
    return Shape(context.settings.sleep_after_s, max_bytes=(await disk.room(context)).max_instance_bytes)


async def with_ceiling(context: Context, shape: Shape) -> Shape:
    """Return the shape with a ceiling, by default the configured one. Raises CeilingTooHigh, Unavailable."""
    highest = (await disk.room(context)).max_instance_bytes
    if shape.max_bytes is None:
        return dataclasses.replace(shape, max_bytes=highest)
    if shape.max_bytes > highest:
        raise CeilingTooHigh(
            f"An instance may write up to {highest} bytes here, and {shape.max_bytes} were requested; request less,"
            " or ask the operator to raise max_instance_bytes in /etc/draupnir/config.toml."
        )
    return shape


async def allowed(context: Context, shape: Shape) -> Shape:
    """Return the shape with a ceiling, if it is allowed.

    Raises SettingRefused, SuperuserNotAllowed, DirectRefused, CeilingTooHigh, Unavailable.
    """
    parameters.require_allowed(context, shape.parameters)
    superusers.require_allowed(context, shape)
    found = await with_ceiling(context, shape)
    if found.network is Network.DIRECT and not context.settings.direct_instances:
        raise DirectRefused(
            "Instances with network `direct` can reach the server's network; the operator can allow"
            " them with direct_instances = true in /etc/draupnir/config.toml."
        )
    return found
