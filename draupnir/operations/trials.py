"""The trial boot of an image: every way in is tried, for as long as its Postgres runs."""

from __future__ import annotations

import asyncio

from draupnir.errors import DraupnirError, ImageFailed
from draupnir.models import Instance
from draupnir.operations import authorities
from draupnir.operations.context import Context
from draupnir_helper import wire

POLL_S = 0.5
# One that was started before its data were there fails once, and is started again.
FAILURES = 2


async def run(context: Context, instance: Instance) -> None:
    """Try the instance out, unless its Postgres fails. Raises ImageFailed, Unavailable."""
    credentials = authorities.issue_client(context, instance)
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(context, instance.id))
            await context.probe(instance.port, credentials)
            watch.cancel()
    except* DraupnirError as errors:
        raise errors.exceptions[0] from None


async def _watch(context: Context, instance_id: int) -> None:
    """Until its unit has failed, which systemd goes on starting. Raises ImageFailed."""
    failures = 0
    while failures < FAILURES:
        await asyncio.sleep(POLL_S)
        try:
            observed = await context.helper.ask(wire.ObserveInstances())
        except DraupnirError:
            continue  # the trial has a deadline of its own
        failures += _has_failed(observed, instance_id)
    raise ImageFailed(
        "trial_failed",
        "Trial boot: Postgres does not run on the image; the data or the script may have damaged its files."
        f" See `journalctl --namespace=draupnir -u draupnir-instance-{instance_id}`.",
    )


def _has_failed(observed: wire.Observed, instance_id: int) -> bool:
    """Whether the instance's Postgres has failed, or waits to be started again."""
    return any(unit.instance_id == instance_id and unit.postgres == "failed" for unit in observed.instance_units)
