"""Handlers of /images: each parses, calls one operation and answers."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draupnir import errors
from draupnir.api.bodies import MAX_SCRIPT_BODY_BYTES, read_document
from draupnir.api.requests import context_of, path_id, read_flag
from draupnir.api.schemas.images import ImageChange, NewImage, write_image, write_image_error, write_report
from draupnir.api.schemas.requests import read_attributes
from draupnir.callers import Caller
from draupnir.models import Image, ImageStatus
from draupnir.operations import images, reports


async def list_all(request: Request, caller: Caller) -> Response:
    """GET /images"""
    now = datetime.now(UTC)
    found = await images.list_all(context_of(request))
    return JSONResponse({"data": [write_image(image, now) for image in found]})


async def create(request: Request, caller: Caller) -> Response:
    """POST /images"""
    document = await read_document(request, max_bytes=MAX_SCRIPT_BODY_BYTES)
    wish = read_attributes(document, "images", NewImage)
    image = await images.create(
        context_of(request),
        wish.backed_up_at,
        wish.anonymisation_script,
        wish.settings,
        wish.canaries,
        keep_residue=wish.keep_residue,
    )
    return _answer(image, 201, {"Location": f"/images/{image.id}"})


async def show(request: Request, caller: Caller) -> Response:
    """GET /images/N"""
    return _answer(await images.get(context_of(request), path_id(request, "image")))


async def update(request: Request, caller: Caller) -> Response:
    """PATCH /images/N"""
    image_id = path_id(request, "image")
    document = await read_document(request, max_bytes=MAX_SCRIPT_BODY_BYTES)
    change = read_attributes(document, "images", ImageChange, image_id)
    if not change.model_fields_set:
        raise errors.InvalidRequest(
            "`data.attributes` is empty; send backed_up_at, anonymisation_script, settings, canaries or keep_residue."
        )
    image = await images.update(
        context_of(request),
        image_id,
        backed_up_at=change.backed_up_at,
        anonymisation_script=change.anonymisation_script,
        parameters=change.settings,
        canaries=change.canaries,
        keep_residue=change.keep_residue,
    )
    return _answer(image)


async def finalise(request: Request, caller: Caller) -> Response:
    """POST /images/N/done; blocks, unless the caller sends `Prefer: respond-async`. A body is ignored."""
    respond_async = _prefers_async(request)
    image = await images.finalise(context_of(request), path_id(request, "image"), wait=not respond_async)
    if not respond_async:
        return _answer(image)
    status = 200 if image.status is ImageStatus.READY else 202
    return _answer(image, status, {"Preference-Applied": "respond-async", "Location": f"/images/{image.id}"})


async def show_error(request: Request, caller: Caller) -> Response:
    """GET /images/N/error: the full, raw error text"""
    image, text = await images.get_error(context_of(request), path_id(request, "image"))
    return JSONResponse({"data": write_image_error(image, text)})


async def show_report(request: Request, caller: Caller) -> Response:
    """GET /images/N/report"""
    image, rows = await reports.get(context_of(request), path_id(request, "image"))
    return JSONResponse({"data": write_report(image, rows)})


async def destroy(request: Request, caller: Caller) -> Response:
    """DELETE /images/N, with ?cascade=true also its instances"""
    await images.destroy(
        context_of(request), path_id(request, "image"), cascade=read_flag(request.query_params, "cascade")
    )
    return Response(status_code=204)


def _answer(image: Image, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"data": write_image(image, datetime.now(UTC))}, status, headers)


def _prefers_async(request: Request) -> bool:
    preferences = ",".join(request.headers.getlist("prefer")).split(",")
    return any(preference.partition(";")[0].strip().lower() == "respond-async" for preference in preferences)
