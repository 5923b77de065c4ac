"""Turns an upload into an image: seal, extract, finalise, publish, trial boot; each step is recorded, then executed.

After an interruption, `finish` continues with the recorded step. If the work of that step is incomplete, it starts
again from the extraction. Only the work of a successful job is published.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from draupnir.errors import (
    DraupnirError,
    ImageFailed,
    Impossible,
    NoFreePort,
    NoRoom,
    NotFound,
    NothingUploaded,
    Unavailable,
    WrongState,
)
from draupnir.helper import UnitFailed
from draupnir.models import Failure, FinaliseStep, Image, ImageStatus, Purpose
from draupnir.operations import failures, jobs, lifecycle, trash, trials
from draupnir.operations.context import Context
from draupnir.operations.parameters import allowed as allowed_parameters
from draupnir.operations.tasks import Subject, Work
from draupnir_helper import wire

FIRST_ACTIVITY = "sealing the upload"
TRYING_OUT = "trial boot"
RESIDUE_NOT_ALLOWED = (
    "The operator does not allow images that keep removed values in their files (keep_residue); omit it, or ask the"
    " operator to set allow_residue = true in /etc/draupnir/config.toml."
)
WAITING_FOR_PORT = "waiting for a free port"

log = logging.getLogger(__name__)


def start(context: Context, image_id: int) -> asyncio.Task[Image]:
    """Continue the finalise of an image in the background."""
    return context.tasks.start(Work.FINALISE, Subject("image", image_id), lambda: _carry_on(context, image_id))


async def finish(context: Context, image_id: int) -> Image:
    """Continue the finalise, or join a running one, until the image is ready.

    Raises NothingUploaded, WrongState, Unavailable (the work continues later), and ImageFailed or NoRoom.
    """
    while True:
        try:
            return await context.tasks.run(
                Work.FINALISE, Subject("image", image_id), lambda: _carry_on(context, image_id)
            )
        except (Impossible, NoRoom, NothingUploaded):
            image = await context.store.images.get(image_id)
            if image is None or image.step is None:
                raise
            # An earlier attempt has failed, and the requested one is recorded, but not executed yet.


async def clear_up(context: Context, image_id: int) -> None:
    """Remove leftovers of a finalise from an image that is no longer finalising."""
    await context.tasks.run(Work.CLEAR_UP, Subject("image", image_id), lambda: _clear_up(context, image_id))


async def _carry_on(context: Context, image_id: int) -> Image:
    image = await context.store.images.get(image_id)
    if image is None:
        raise NotFound(f"Image {image_id} not found.")
    try:
        while image.step is not None:
            image = await _STEPS[image.step](context, image)
    except jobs.NoLongerFinalising:
        raise _destroyed_meanwhile(image_id) from None
    except (Unavailable, NothingUploaded):
        raise
    except DraupnirError as error:
        if not await _record_failure(context, image_id, error):
            raise _destroyed_meanwhile(image_id) from error
        raise
    except Exception as error:
        # A retry would fail again, and the image would stay finalising without a reason.
        log.exception("finalising image %s failed unexpectedly", image_id)
        broken = ImageFailed("internal", "An unexpected error occurred in the service; see `journalctl -u draupnir`.")
        if not await _record_failure(context, image_id, broken):
            raise _destroyed_meanwhile(image_id) from error
        raise broken from error
    match image.status:
        case ImageStatus.READY:
            return image
        case ImageStatus.FAILED if image.failure is not None:
            raise failures.error_of(image.failure)
        case ImageStatus.AWAITING_UPLOAD:
            raise NothingUploaded(_nothing_uploaded(image_id))
        case _:
            raise WrongState(f"Image {image_id} is {image.status} and cannot be finalised; create a new image.")


async def _seal(context: Context, image: Image) -> Image:
    # Leftovers of an earlier attempt, even a published snapshot, must not be mistaken for those of this attempt.
    await context.helper.ask(wire.StopJobs(image_id=image.id))
    await context.helper.ask(wire.DiscardParts(image_id=image.id, parts=["work", "image"]))
    sealed = await context.helper.ask(wire.SealUpload(image_id=image.id))
    if sealed.empty:
        await context.helper.ask(wire.DiscardParts(image_id=image.id, parts=["seal"]))
        jobs.still(await context.store.images.leave_finalising(image.id))
        raise NothingUploaded(_nothing_uploaded(image.id))
    return jobs.still(await context.store.images.move_to_step(image, FinaliseStep.EXTRACT, "extracting"))


async def _extract(context: Context, image: Image) -> Image:
    await context.helper.ask(wire.StartExtract(image_id=image.id))
    report = await jobs.follow(context, image, wire.JobKind.EXTRACT)
    if report.postgres_major is None:
        raise ImageFailed(
            "job_killed", "The extract job did not report the Postgres version; finalise the image again."
        )
    return jobs.still(
        await context.store.images.move_to_step(
            image,
            FinaliseStep.FINALISE,
            "starting Postgres",
            postgres_major=report.postgres_major,
            parameters=allowed_parameters(context, report.parameters),
        )
    )


async def _finalise(context: Context, image: Image) -> Image:
    if await jobs.state_of(context, image, wire.JobKind.FINALISE) is wire.JobState.ABSENT:
        # The finalise job may only start on freshly extracted work.
        if await jobs.state_of(context, image, wire.JobKind.EXTRACT) is not wire.JobState.SUCCEEDED:
            return await _extract_anew(context, image)
        if image.keep_residue and not context.settings.allow_residue:
            raise ImageFailed("residue_not_allowed", RESIDUE_NOT_ALLOWED)
        await context.helper.ask(
            wire.StartFinalise(
                image_id=image.id,
                postgres_major=_major(image),
                anonymisation_script=image.anonymisation_script,
                carried_over=dict(image.parameters),
                given=dict(image.given_parameters),
                canaries=list(image.canaries),
                keep_residue=image.keep_residue,
            )
        )
    report = await jobs.follow(context, image, wire.JobKind.FINALISE)
    return jobs.still(
        await context.store.images.move_to_step(
            image,
            FinaliseStep.PUBLISH,
            "publishing",
            size_bytes=report.size_bytes,
            trigger_tables=[failures.printable(name) for name in report.trigger_tables],
            parameters={
                name: value
                for name, value in {**image.parameters, **image.given_parameters}.items()
                if name not in report.refused_parameters
            },
            superuser=_storable(report.superuser),
            database=_storable(report.database),
            proved=report.proved,
        )
    )


async def _publish(context: Context, image: Image) -> Image:
    if await jobs.state_of(context, image, wire.JobKind.FINALISE) is not wire.JobState.SUCCEEDED:
        return await _extract_anew(context, image)
    await context.helper.ask(
        wire.PublishImage(
            image_id=image.id,
            postgres_major=_major(image),
            backed_up_at=image.backed_up_at,
            created_at=image.created_at,
        )
    )
    return jobs.still(await context.store.images.move_to_step(image, FinaliseStep.TRIAL, TRYING_OUT))


async def _try_out(context: Context, image: Image) -> Image:
    await _end_trials(context, image.id)
    try:
        instance = await lifecycle.reserve_trial(context, image)
        instance = await lifecycle.bring_up(context, instance.id)
    except NoFreePort:
        image = await jobs.note(context, image, WAITING_FOR_PORT, None, None)
        await asyncio.sleep(jobs.POLL_S)
        return image
    except UnitFailed as error:
        raise ImageFailed("trial_failed", f"Postgres does not start on the image: {error.detail}") from error
    await jobs.note(context, image, TRYING_OUT, None, None)
    await trials.run(context, instance, image.superuser or trials.USUAL_SUPERUSER)
    await _end_trials(context, image.id)
    ready = jobs.still(await context.store.images.mark_ready(image))
    _clear_up_later(context, image.id)
    return ready


_STEPS: dict[FinaliseStep, Callable[[Context, Image], Awaitable[Image]]] = {
    FinaliseStep.SEAL: _seal,
    FinaliseStep.EXTRACT: _extract,
    FinaliseStep.FINALISE: _finalise,
    FinaliseStep.PUBLISH: _publish,
    FinaliseStep.TRIAL: _try_out,
}


async def _extract_anew(context: Context, image: Image) -> Image:
    # Do this before the step changes, because `extract` would accept a successful job of the earlier attempt.
    await context.helper.ask(wire.StopJobs(image_id=image.id))
    await context.helper.ask(wire.DiscardParts(image_id=image.id, parts=["work", "image"]))
    return jobs.still(await context.store.images.move_to_step(image, FinaliseStep.EXTRACT, "extracting"))


async def _end_trials(context: Context, image_id: int) -> None:
    for instance in await context.store.instances.list_of_image(image_id):
        if instance.purpose is Purpose.TRIAL:
            await context.store.instances.begin_destroying(instance.id)
            await lifecycle.tear_down(context, instance.id)


async def _record_failure(context: Context, image_id: int, error: DraupnirError) -> bool:
    """Record the failure, and discard all except the upload. Return False if the image is not finalising."""
    await _end_trials(context, image_id)
    # Keep the text before callers can request it, and before the work is discarded.
    await context.helper.ask(wire.KeepErrorText(image_id=image_id))
    failed = await context.store.images.mark_failed(image_id, Failure(error.code, failures.printable(error.detail)))
    if failed is not None:
        _clear_up_later(context, image_id)
    return failed is not None


def _clear_up_later(context: Context, image_id: int) -> None:
    """Start the cleanup as a separate task; after a failure the reconciler repeats it."""
    context.tasks.start(Work.CLEAR_UP, Subject("image", image_id), lambda: _clear_up(context, image_id))


async def _clear_up(context: Context, image_id: int) -> None:
    image = await context.store.images.get(image_id)
    if image is None or image.status in {ImageStatus.FINALISING, ImageStatus.DESTROYING}:
        return
    await context.helper.ask(wire.StopJobs(image_id=image_id))
    if image.status is ImageStatus.READY:
        await context.helper.ask(wire.DiscardParts(image_id=image_id, parts=["upload", "seal", "work"]))
    else:
        await context.helper.ask(wire.DiscardParts(image_id=image_id, parts=["seal", "work", "image"]))
    trash.empty(context)


def _destroyed_meanwhile(image_id: int) -> WrongState:
    return WrongState(f"Image {image_id} was destroyed while it was being finalised; create a new image.")


def _nothing_uploaded(image_id: int) -> str:
    return (
        f"Nothing has been uploaded for image {image_id};"
        f" copy the backup to upload@HOST:/draupnir/image_uploads/{image_id} and finalise again."
    )


def _storable(name: str | None) -> str | None:
    return None if name is None else name.replace("\0", "")


def _major(image: Image) -> int:
    if image.postgres_major is None:
        raise ImageFailed("job_killed", "The Postgres version of the data is unknown; finalise the image again.")
    return image.postgres_major
