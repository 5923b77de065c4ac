"""Operations on images: create, list, update, finalise, destroy. finalise.py has the steps of a finalise."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

from draupnir.errors import DraupnirError, InvalidRequest, NotFound, ResidueNotAllowed, WrongState
from draupnir.lifecycles import IMAGES, Change, Undo
from draupnir.models import Image, ImageStatus
from draupnir.operations import finalise as finalising
from draupnir.operations import ids, lifecycle, trash
from draupnir.operations.context import Context
from draupnir.operations.parameters import require_allowed
from draupnir.operations.tasks import Subject, Work
from draupnir_helper import wire

MAX_SCRIPT_BYTES = 1024 * 1024

log = logging.getLogger(__name__)


async def create(
    context: Context,
    backed_up_at: datetime,
    anonymisation_script: str,
    parameters: Mapping[str, str] | None = None,
    canaries: Sequence[str] = (),
    *,
    keep_residue: bool = False,
) -> Image:
    """Create an image with its upload folder.

    `parameters` are settings of Postgres for its instances. No file of the image may contain one of the `canaries`.
    With `keep_residue`, the files keep values that the script removes.
    Raises InvalidRequest, SettingRefused, ResidueNotAllowed, NoFreeId, NoRoom, Unavailable.
    """
    _check_script(anonymisation_script)
    require_allowed(context, parameters or {})
    _check_residue(context, keep_residue=keep_residue)
    taken_ids = await ids.of_images(context)
    image = await context.store.images.insert(
        backed_up_at, anonymisation_script, taken_ids, parameters, canaries, keep_residue=keep_residue
    )
    await context.tasks.run(
        Work.CREATE_IMAGE, Subject("image", image.id), lambda: _make_upload_or_undo(context, image.id)
    )
    return image


async def get(context: Context, image_id: int) -> Image:
    """Return the image. Raises NotFound."""
    image = await context.store.images.get(image_id)
    if image is None:
        raise NotFound(f"Image {image_id} not found; `draupnir-client images list` lists the images.")
    return image


async def get_error(context: Context, image_id: int) -> tuple[Image, str]:
    """Return a failed image, and its full error text. Raises NotFound, Unavailable.

    The text quotes raw data, so only uploaders and admins get it, and the daemon does not store or log it.
    """
    image = await get(context, image_id)
    if image.status is not ImageStatus.FAILED:
        raise NotFound(f"Image {image_id} is {image.status}, and only a failed image has an error.")
    found = await context.helper.ask(wire.ReadErrorText(image_id=image_id))
    if found.text is None:
        raise NotFound(
            f"The whole error text of image {image_id} does not exist; GET /images/{image_id} returns the short one."
        )
    return image, found.text


async def list_all(context: Context) -> list[Image]:
    """Return all images, by id."""
    return await context.store.images.list_all()


async def update(
    context: Context,
    image_id: int,
    *,
    backed_up_at: datetime | None,
    anonymisation_script: str | None,
    parameters: Mapping[str, str | None] | None = None,
    canaries: Sequence[str] | None = None,
    keep_residue: bool | None = None,
) -> Image:
    """Change the values that are not None. Remove settings that are None in `parameters`.

    Raises InvalidRequest, SettingRefused, ResidueNotAllowed, NotFound, and WrongState if it is finalising or ready.
    """
    require_allowed(context, parameters or {})
    _check_residue(context, keep_residue=bool(keep_residue))
    if anonymisation_script is not None:
        _check_script(anonymisation_script)
    image = await context.store.images.update(
        image_id,
        backed_up_at=backed_up_at,
        anonymisation_script=anonymisation_script,
        parameters=parameters or {},
        canaries=canaries,
        keep_residue=keep_residue,
    )
    if image is None:
        status = (await get(context, image_id)).status
        raise WrongState(
            f"Image {image_id} is {status} and can be changed only while it awaits its upload or has failed;"
            " create a new image instead."
        )
    return image


async def finalise(context: Context, image_id: int, *, wait: bool) -> Image:
    """Start to finalise, or join a running finalise. The work continues if the caller stops waiting.

    Raises NotFound, WrongState, NothingUploaded, and, when waiting, ImageFailed or NoRoom for an image that failed.
    """
    image = await context.store.images.begin_finalising(image_id, finalising.FIRST_ACTIVITY)
    if image is None:
        image = await get(context, image_id)
    if image.status is ImageStatus.READY:
        return image
    if image.status is ImageStatus.DESTROYING:
        raise WrongState(f"Image {image_id} is being destroyed; create a new image instead.")
    if wait:
        return await finalising.finish(context, image_id)
    finalising.start(context, image_id)
    return image


async def destroy(context: Context, image_id: int, *, cascade: bool) -> None:
    """Destroy the image, and with `cascade` its instances. A running finalise ends first.

    Raises NotFound, ImageHasInstances, Unavailable.
    """
    await context.store.images.begin_destroying(image_id, cascade=cascade)
    await tear_down(context, image_id)


async def make_upload(context: Context, image_id: int) -> None:
    """Create the missing upload folder of an image, such as after an interrupted creation."""
    await context.tasks.run(Work.MAKE_UPLOAD, Subject("image", image_id), lambda: _make_upload(context, image_id))


async def tear_down(context: Context, image_id: int) -> None:
    """Finish the destruction of an image, or join a running one."""
    await context.tasks.run(Work.DESTROY_IMAGE, Subject("image", image_id), lambda: _tear_down(context, image_id))


async def _make_upload(context: Context, image_id: int) -> None:
    image = await context.store.images.get(image_id)
    if image is not None and image.status in {ImageStatus.AWAITING_UPLOAD, ImageStatus.FAILED}:
        await context.helper.ask(wire.CreateUpload(image_id=image_id))


async def _make_upload_or_undo(context: Context, image_id: int) -> None:
    try:
        await _make_upload(context, image_id)
    except DraupnirError:
        await _undo(context, image_id, IMAGES[None, ImageStatus.AWAITING_UPLOAD])
        raise


async def _undo(context: Context, image_id: int, change: Change) -> None:
    """Roll back a change whose work failed, as the life cycle defines. If that fails, the reconciler does it."""
    if change.undo is not Undo.DESTROY:
        return
    try:
        await context.store.images.begin_destroying(image_id, cascade=False)
        await _tear_down(context, image_id)
    except DraupnirError as error:
        log.warning("image %s is left to the reconciler: %s", image_id, error.detail)


async def _tear_down(context: Context, image_id: int) -> None:
    image = await context.store.images.get(image_id)
    if image is None or image.status is not ImageStatus.DESTROYING:
        return
    descendants = await context.store.instances.list_of_image(image_id)
    await asyncio.gather(*(lifecycle.tear_down(context, each.id) for each in descendants))
    await context.helper.ask(wire.DestroyImage(image_id=image_id))
    await context.store.images.delete(image_id)
    trash.empty(context)


def _check_residue(context: Context, *, keep_residue: bool) -> None:
    if keep_residue and not context.settings.allow_residue:
        raise ResidueNotAllowed(finalising.RESIDUE_NOT_ALLOWED)


def _check_script(script: str) -> None:
    if "\0" in script:
        raise InvalidRequest("anonymisation_script contains a NUL character, which SQL does not allow; remove it.")
    try:
        size_bytes = len(script.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"anonymisation_script contains half of a surrogate pair at character {error.start}; send valid Unicode."
        ) from None
    if size_bytes > MAX_SCRIPT_BYTES:
        raise InvalidRequest(f"anonymisation_script is longer than {MAX_SCRIPT_BYTES} bytes; shorten it.")
