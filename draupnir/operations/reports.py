"""Returns the report of an image: what its jobs found, changed, dropped or could not do.

Unprivileged code wrote the report, so it is untrusted.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import TypeAdapter, ValidationError

from draupnir.errors import NotFound
from draupnir.models import Image, ReportRow
from draupnir.operations import images
from draupnir.operations.context import Context
from draupnir.operations.failures import printable
from draupnir_helper import wire

_ROWS = TypeAdapter(list[ReportRow])


async def get(context: Context, image_id: int) -> tuple[Image, list[ReportRow]]:
    """Return the image and the rows of its report. Raises NotFound, Unavailable."""
    image = await images.get(context, image_id)
    found = await context.helper.ask(wire.ReadReport(image_id=image_id))
    if found.text is None:
        why = "it failed before it could write one" if image.status == "failed" else "finalising writes the report"
        raise NotFound(f"Image {image_id} is {image.status} and has no report, because {why}.")
    try:
        rows = _ROWS.validate_json(found.text)
    except ValidationError:
        raise NotFound(f"The report of image {image_id} is damaged; finalise a new image of the backup.") from None
    return image, [_printable(row) for row in rows]


def _printable(row: ReportRow) -> ReportRow:
    return replace(
        row,
        code=printable(row.code),
        database=printable(row.database),
        object=printable(row.object),
        detail=printable(row.detail),
        remedy=printable(row.remedy),
    )
