"""Bodies about images."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal, NotRequired

from pydantic import Field

# pydantic accepts the version of `typing` only from Python 3.12 on.
from typing_extensions import TypedDict

from draupnir.api.schemas.requests import Attributes
from draupnir.api.schemas.values import (
    CANARIES,
    FLAG,
    PARAMETER_CHANGES,
    PARAMETERS,
    TEXT,
    TIME,
    WrittenTime,
    write_time,
)
from draupnir.models import FinaliseStep, Image, ImageStatus, ReportRow

_KEEPS = Field(description="Keep removed values in the files: nothing is rewritten, and no search is made.")


class NewImage(Attributes):
    """The attributes of POST /images."""

    backed_up_at: Annotated[datetime, TIME]
    anonymisation_script: Annotated[str, TEXT]
    settings: Annotated[dict[str, str], PARAMETERS] = Field(default_factory=dict)
    canaries: Annotated[list[str], CANARIES] = Field(default_factory=list)
    keep_residue: Annotated[bool, FLAG, _KEEPS] = False
    unrepeatable: ClassVar[frozenset[str]] = frozenset({"canaries"})


class ImageChange(Attributes):
    """The attributes of PATCH /images/N; absent ones stay unchanged."""

    backed_up_at: Annotated[datetime | None, TIME] = None
    anonymisation_script: Annotated[str | None, TEXT] = None
    settings: Annotated[dict[str, str | None] | None, PARAMETER_CHANGES] = None
    canaries: Annotated[list[str] | None, CANARIES] = None
    keep_residue: Annotated[bool | None, FLAG, _KEEPS] = None
    unrepeatable: ClassVar[frozenset[str]] = frozenset({"canaries"})


class ImageFailure(TypedDict):
    """The error of an image: a stable code, and a text without rows of the data."""

    code: str
    detail: str


class ImageProgress(TypedDict):
    """The progress of a finalise."""

    step: FinaliseStep
    activity: str
    done_bytes: int | None
    total_bytes: int | None
    seconds: Annotated[int | None, Field(description="Since the step began.")]


class ImageAttributes(TypedDict):
    """The attributes of an image."""

    backed_up_at: WrittenTime
    created_at: WrittenTime
    updated_at: WrittenTime
    ready: Annotated[bool, Field(description="Whether instances can be made of it.")]
    status: ImageStatus
    error: Annotated[ImageFailure | None, Field(description="While its status is `failed`.")]
    progress: Annotated[ImageProgress | None, Field(description="While its status is `finalising`.")]
    anonymisation_script: str
    postgres_version: Annotated[str | None, Field(description="The major version, such as `17`.")]
    size_bytes: int | None
    settings: Annotated[dict[str, str], Field(description="Settings that its instances get, given or carried over.")]
    database: Annotated[
        str | None, Field(description="To connect to: the only one with data, or else one that exists.")
    ]
    tables_written_by_triggers: Annotated[
        list[str], Field(description="Tables to which triggers wrote while the script ran.")
    ]
    keep_residue: Annotated[bool, Field(description="Whether the files keep values that the script removed.")]
    proved: Annotated[bool, Field(description="Whether a search found no value that the script removed.")]
    anonymisation_script_truncated: NotRequired[
        Annotated[Literal[True], Field(description="In a list: the script shown is only the beginning.")]
    ]


class ImageResource(TypedDict):
    """An image."""

    type: Literal["images"]
    id: int
    attributes: ImageAttributes


class ImageErrorAttributes(TypedDict):
    """The full error of an image, with code and detail if a job reported them."""

    code: NotRequired[str]
    detail: NotRequired[str]
    text: Annotated[str, Field(description="All that Postgres wrote; it may quote rows of the data.")]


class ImageErrorResource(TypedDict):
    """The error of an image."""

    type: Literal["image_errors"]
    id: int
    attributes: ImageErrorAttributes


class ReportRowObject(TypedDict):
    """A row of a report. Missing texts are empty."""

    code: Annotated[str, Field(description="Stable, such as `file_dropped`; the operator guide lists all codes.")]
    database: str
    object: str
    detail: Annotated[str, Field(description="What was found, changed, dropped, carried over or not done.")]
    remedy: Annotated[str, Field(description="What to do about it.")]


class ReportAttributes(TypedDict):
    """The rows of a report."""

    rows: list[ReportRowObject]


class ReportResource(TypedDict):
    """The report of an image."""

    type: Literal["reports"]
    id: int
    attributes: ReportAttributes


def write_image(image: Image, now: datetime) -> ImageResource:
    """Return the resource object of an image."""
    attributes: ImageAttributes = {
        "backed_up_at": write_time(image.backed_up_at),
        "created_at": write_time(image.created_at),
        "updated_at": write_time(image.updated_at),
        "ready": image.status is ImageStatus.READY,
        "status": image.status,
        "error": _write_failure(image),
        "progress": _write_progress(image, now),
        "anonymisation_script": image.anonymisation_script,
        "postgres_version": None if image.postgres_major is None else str(image.postgres_major),
        "size_bytes": image.size_bytes,
        "settings": {**image.parameters, **image.given_parameters},
        "database": image.database,
        "tables_written_by_triggers": list(image.trigger_tables),
        "keep_residue": image.keep_residue,
        "proved": image.proved,
    }
    if image.script_truncated:
        attributes["anonymisation_script_truncated"] = True
    return {"type": "images", "id": image.id, "attributes": attributes}


def write_image_error(image: Image, text: str) -> ImageErrorResource:
    """Return the resource object of an image's full error text, which may quote raw data."""
    failure = _write_failure(image)
    attributes: ImageErrorAttributes = {"text": text} if failure is None else {**failure, "text": text}
    return {"type": "image_errors", "id": image.id, "attributes": attributes}


def write_report(image: Image, rows: list[ReportRow]) -> ReportResource:
    """Return the resource object of an image's report."""
    written: list[ReportRowObject] = [
        {
            "code": row.code,
            "database": row.database,
            "object": row.object,
            "detail": row.detail,
            "remedy": row.remedy,
        }
        for row in rows
    ]
    return {"type": "reports", "id": image.id, "attributes": {"rows": written}}


def _write_failure(image: Image) -> ImageFailure | None:
    if image.status is not ImageStatus.FAILED or image.failure is None:
        return None
    return {"code": image.failure.code, "detail": image.failure.detail}


def _write_progress(image: Image, now: datetime) -> ImageProgress | None:
    if image.status is not ImageStatus.FINALISING or image.step is None:
        return None
    progress = image.progress
    started_at = progress.started_at if progress else None
    return {
        "step": image.step,
        "activity": progress.activity if progress else "",
        "done_bytes": progress.done_bytes if progress else None,
        "total_bytes": progress.total_bytes if progress else None,
        "seconds": None if started_at is None else max(0, int((now - started_at).total_seconds())),
    }
