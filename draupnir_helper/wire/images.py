"""The requests about images on disk, and their replies."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from draupnir_helper.wire.models import Done, ImageId, PostgresMajor, Request, Wire


class CreateUpload(Request[Done]):
    """Create the upload subvolume, owned by the upload user."""

    op: Literal["create_upload"] = "create_upload"
    image_id: ImageId


class LimitUploads(Request[Done]):
    """Stop all uploads from growing while the disk is full (`frozen`), or let each grow up to its ceiling again."""

    op: Literal["limit_uploads"] = "limit_uploads"
    frozen: bool


class Sealed(Wire):
    """The seal exists; `empty` if nothing was uploaded."""

    empty: bool


class SealUpload(Request[Sealed]):
    """Take a read-only snapshot of the upload, which replaces an earlier seal."""

    op: Literal["seal_upload"] = "seal_upload"
    image_id: ImageId


class Published(Wire):
    """The published snapshot and its btrfs uuid."""

    uuid: str


class PublishImage(Request[Published]):
    """Snapshot the work read-only as the image. Refused unless its finalise job succeeded."""

    deadline_s: ClassVar[float] = 600
    op: Literal["publish_image"] = "publish_image"
    image_id: ImageId
    postgres_major: PostgresMajor
    backed_up_at: Annotated[AwareDatetime, Field(strict=False)]
    created_at: Annotated[AwareDatetime, Field(strict=False)]


class DiscardParts(Request[Done]):
    """Move the named parts of an image to the trash. Refused with IN_USE while a job or an instance needs them.

    `image` is the published snapshot, for an attempt that failed after publishing.
    """

    op: Literal["discard_parts"] = "discard_parts"
    image_id: ImageId
    parts: Annotated[list[Literal["upload", "seal", "work", "image"]], Field(max_length=4)]


class DestroyImage(Request[Done]):
    """Stop the image's jobs and move all its parts to the trash. Refused with IN_USE while it has instances."""

    deadline_s: ClassVar[float] = 600
    op: Literal["destroy_image"] = "destroy_image"
    image_id: ImageId


class KeepErrorText(Request[Done]):
    """Keep the error text of a failed job beside the upload, for as long as the upload exists, and its report.

    The text quotes raw data. A new seal deletes both.
    """

    op: Literal["keep_error_text"] = "keep_error_text"
    image_id: ImageId


class ErrorText(Wire):
    """The error text of a failed image, at most 1 MiB, or None. It is untrusted and quotes raw data."""

    text: str | None


class ReadErrorText(Request[ErrorText]):
    """Return the text that KeepErrorText kept."""

    op: Literal["read_error_text"] = "read_error_text"
    image_id: ImageId


class ReportText(Wire):
    """The report of an image as its jobs wrote it, JSON of at most 1 MiB, or None. It is untrusted."""

    text: str | None


class ReadReport(Request[ReportText]):
    """Return the report that PublishImage or KeepErrorText kept. A new seal deletes it."""

    op: Literal["read_report"] = "read_report"
    image_id: ImageId
