"""The trial boot of an image: runs the sign-in probes, and fails if its Postgres fails."""

from __future__ import annotations

import asyncio

from draupnir.errors import DraupnirError, ImageFailed
from draupnir.models import Instance
from draupnir.operations import authorities
from draupnir.operations.context import Context
from draupnir_helper import wire

POLL_S = 0.5
# If Postgres starts before its data exist, it fails once, and systemd restarts it.
FAILURES = 2
USUAL_SUPERUSER = "postgres"


async def run(context: Context, instance: Instance, superuser: str) -> None:
    """Run the probes against the instance, unless its Postgres fails. Raises ImageFailed, Unavailable."""
    authority = authorities.opened(context, instance)
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(context, instance.id))
            await context.probe(instance.port, authority, superuser)
            watch.cancel()
    except* DraupnirError as errors:
        raise errors.exceptions[0] from None


async def _watch(context: Context, instance_id: int) -> None:
    """Watch the unit of Postgres, which systemd restarts. Raises ImageFailed when it has failed."""
    failures = 0
    while failures < FAILURES:
        await asyncio.sleep(POLL_S)
        try:
            observed = await context.helper.ask(wire.ObserveInstances())
        except DraupnirError:
            continue  # the probes have their own deadline
        failures += _has_failed(observed, instance_id)
    raise ImageFailed(
        "trial_failed",
        "Trial boot: Postgres does not run on the image; the data or the script may have damaged its files."
        f" See `journalctl --namespace=draupnir -u draupnir-instance-{instance_id}`.",
    )


def _has_failed(observed: wire.Observed, instance_id: int) -> bool:
    """Return whether the instance's Postgres has failed, or waits for a restart."""
    return any(unit.instance_id == instance_id and unit.postgres == "failed" for unit in observed.instance_units)
