"""The URLs of images."""

from __future__ import annotations

from draupnir import errors
from draupnir.api import images
from draupnir.api.endpoints import Body, Endpoint, Parameter
from draupnir.api.routes.shared import FLAG, HELPER, START
from draupnir.api.schemas.answers import Many, One
from draupnir.api.schemas.images import ImageChange, ImageErrorResource, ImageResource, NewImage, ReportResource
from draupnir.helper import UnitFailed
from draupnir.roles import KEPT, SHARED

SCRIPT = "\\c my_db\nDELETE FROM secret_tokens;"

ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/images",
        access=SHARED,
        handler=images.list_all,
        does='Lists images. Scripts are cut at 8,192 characters (`"anonymisation_script_truncated": true`).',
        answers={200: Many[ImageResource]},
    ),
    Endpoint(
        method="POST",
        path="/images",
        access=KEPT,
        handler=images.create,
        does="Creates an image.",
        body=Body("images", NewImage, {"backed_up_at": "2017-05-01T12:00:00Z", "anonymisation_script": SCRIPT}),
        answers={201: One[ImageResource]},
        errors=(*HELPER, errors.NoFreeId, errors.SettingRefused, errors.ResidueNotAllowed),
    ),
    Endpoint(
        method="GET",
        path="/images/{image_id}",
        access=SHARED,
        handler=images.show,
        does="Returns an image with its whole script, `status`, `progress`, `error`, `size_bytes`, "
        "`tables_written_by_triggers`.",
        answers={200: One[ImageResource]},
    ),
    Endpoint(
        method="PATCH",
        path="/images/{image_id}",
        access=KEPT,
        handler=images.update,
        does="Corrects the script or the time until the image is ready.",
        body=Body("images", ImageChange, {"anonymisation_script": SCRIPT}, has_id=True),
        answers={200: One[ImageResource]},
        errors=(errors.WrongState, errors.SettingRefused, errors.ResidueNotAllowed),
    ),
    Endpoint(
        method="DELETE",
        path="/images/{image_id}",
        access=KEPT,
        handler=images.destroy,
        does="Destroys an image; with `cascade` its instances too.",
        parameters=(Parameter("cascade", FLAG, "true"),),
        answers={204: None},
        errors=(*HELPER, UnitFailed, errors.ImageHasInstances, errors.WrongState),
    ),
    Endpoint(
        method="POST",
        path="/images/{image_id}/done",
        access=KEPT,
        handler=images.finalise,
        does="Finalises an image and waits for the end. With the header, returns 202 at once.",
        parameters=(Parameter("Prefer", {"type": "string"}, "respond-async", place="header"),),
        answers={200: One[ImageResource], 202: One[ImageResource]},
        errors=(*START, errors.ImageFailed, errors.NothingUploaded, errors.WrongState),
    ),
    Endpoint(
        method="GET",
        path="/images/{image_id}/error",
        access=KEPT,
        handler=images.show_error,
        does="Returns the whole message of a failure in `text`. It may quote raw rows; for uploaders and admins only.",
        answers={200: One[ImageErrorResource]},
        errors=HELPER,
    ),
    Endpoint(
        method="GET",
        path="/images/{image_id}/report",
        access=SHARED,
        handler=images.show_report,
        does="Returns what a finalise found, changed, dropped, carried over or could not do, and what to do about it.",
        answers={200: One[ReportResource]},
        errors=HELPER,
    ),
)
