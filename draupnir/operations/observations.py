"""The condition of instances: combines the intended status with the helper's observation."""

from __future__ import annotations

from collections.abc import Collection

from draupnir.errors import Unavailable
from draupnir.models import Condition, Instance, InstanceStatus, Observation
from draupnir.operations.context import Context
from draupnir_helper import wire

_CONDITIONS = {
    InstanceStatus.CREATING: Condition.CREATING,
    InstanceStatus.STOPPED: Condition.STOPPED,
    InstanceStatus.CLOSED: Condition.CLOSED,
    InstanceStatus.DESTROYING: Condition.DESTROYING,
}


async def observe(context: Context, found: Collection[Instance]) -> dict[int, Observation]:
    """Return the condition of each instance, or UNKNOWN if the helper is unavailable."""
    try:
        observed = await context.helper.ask(wire.ObserveInstances())
    except Unavailable:
        return {each.id: Observation(_CONDITIONS.get(each.status, Condition.UNKNOWN)) for each in found}
    states = {unit.instance_id: unit for unit in observed.instance_units}
    written = {each.instance_id: each.size_bytes for each in observed.written}
    return {
        each.id: Observation(
            _CONDITIONS.get(each.status) or _condition(each, states.get(each.id)), written.get(each.id)
        )
        for each in found
    }


def _condition(instance: Instance, state: wire.InstanceState | None) -> Condition:
    """Return the condition of an instance that should run."""
    match state:
        case wire.InstanceState(postgres="failed") | wire.InstanceState(listening=False) | None:
            return Condition.FAILED
        case _ if instance.fullness.full:
            return Condition.FULL
        case wire.InstanceState(postgres="inactive"):
            return Condition.ASLEEP
        case _:
            return Condition.RUNNING
