"""The shape of an instance: the requested values, the defaults, and the operator's limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from draupnir.errors import CeilingTooHigh, DirectRefused, SettingRefused
from draupnir.models import Network, Shape
from draupnir.operations import disk
from draupnir.operations.context import Context
from draupnir_helper import wire


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


def allowed_parameters(context: Context, parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that the operator allows."""
    return {name: value for name, value in parameters.items() if is_allowed(context, name)}


def is_allowed(context: Context, name: str) -> bool:
    """Return whether the operator allows the setting, by its name or by its group."""
    return not context.settings.allowed_settings.isdisjoint({name, wire.PARAMETERS[name].group})


def require_allowed(context: Context, parameters: Iterable[str]) -> None:
    """Raise SettingRefused for a setting that the operator does not allow."""
    for name in parameters:
        if not is_allowed(context, name):
            raise SettingRefused(
                f"The operator does not allow the setting {name}; omit it, or ask the operator to add it to"
                " allowed_settings in /etc/draupnir/config.toml."
            )


async def allowed(context: Context, shape: Shape) -> Shape:
    """Return the shape with a ceiling, if it is allowed.

    Raises SettingRefused, DirectRefused, CeilingTooHigh, Unavailable.
    """
    require_allowed(context, shape.parameters)
    found = await with_ceiling(context, shape)
    if found.network is Network.DIRECT and not context.settings.direct_instances:
        raise DirectRefused(
            "Instances with network `direct` can reach the server's network; the operator can allow"
            " them with direct_instances = true in /etc/draupnir/config.toml."
        )
    return found
