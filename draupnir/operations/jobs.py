"""Follows a job of an image to its end, and records its progress."""

from __future__ import annotations

import asyncio
import time

from draupnir.errors import ImageFailed, NoRoom
from draupnir.models import Image
from draupnir.operations import disk, failures
from draupnir.operations.context import Context
from draupnir_helper import wire

POLL_S = 0.5
# The pause between two checks of a job is a small fraction of its run time, and so is the delay at its end.
FIRST_POLL_S = 0.02
POLLS_PER_JOB = 20


class NoLongerFinalising(Exception):
    """Another task has changed the row, because the image is being destroyed."""


def still(image: Image | None) -> Image:
    """Return the row that a change returned. Raises NoLongerFinalising if the change lost a race."""
    if image is None:
        raise NoLongerFinalising
    return image


async def follow(context: Context, image: Image, kind: wire.JobKind) -> wire.JobReport:
    """Wait for a job, and record its progress. Raises ImageFailed or NoRoom with the job's reason."""
    began = time.monotonic()
    while True:
        job = await context.helper.ask(wire.InspectJob(kind=kind, image_id=image.id))
        match job.state:
            case wire.JobState.SUCCEEDED:
                return job.report
            case wire.JobState.FAILED:
                raise failures.error_of(failures.of_job(job))
            case wire.JobState.ABSENT:
                raise ImageFailed("job_killed", f"The {kind} job vanished; finalise the image again.")
            case wire.JobState.RUNNING:
                await _require_room(context, kind)
                image = await note(context, image, job.report.step, job.report.done_bytes, job.report.total_bytes)
                await asyncio.sleep(min(POLL_S, max(FIRST_POLL_S, (time.monotonic() - began) / POLLS_PER_JOB)))


async def _require_room(context: Context, kind: wire.JobKind) -> None:
    """Raise NoRoom if the disk is low. This stops the job, which can be repeated, before instances are stopped."""
    room = await disk.room(context)
    least_bytes = room.low_bytes if kind is wire.JobKind.EXTRACT else room.critical_bytes
    if short := await disk.shortage(context, least_bytes):
        raise NoRoom(
            f"The data disk has only {short.free_bytes >> 20} MiB free; destroy instances or images, or enlarge the"
            " disk, and finalise again."
        )


async def note(context: Context, image: Image, activity: str, done: int | None, total: int | None) -> Image:
    """Record the progress if it changed; this also detects that the image is being destroyed."""
    known = image.progress
    activity = failures.printable(activity) or (known.activity if known else "")
    if known is None or (known.activity, known.done_bytes, known.total_bytes) != (activity, done, total):
        return still(await context.store.images.note_progress(image, activity, done, total))
    return await _current(context, image)


async def _current(context: Context, image: Image) -> Image:
    """Return the current row if it is still at this step."""
    now = await context.store.images.get(image.id)
    return still(now if now is not None and now.step is image.step else None)


async def state_of(context: Context, image: Image, kind: wire.JobKind) -> wire.JobState:
    """Return the state of a job."""
    return (await context.helper.ask(wire.InspectJob(kind=kind, image_id=image.id))).state
