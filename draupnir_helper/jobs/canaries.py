"""Fails an image if a file contains a canary: a value of the source that the script must have removed."""

from __future__ import annotations

from collections.abc import Sequence

from draupnir_helper.jobs import relations
from draupnir_helper.jobs.relations import Relations
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows

_NAMED = 10


def require_absent(canaries: Sequence[bytes], paths: Sequence[str], named: Relations, rows: Rows) -> None:
    """Judge the files that contain one. Raises canary_found; the message names files and relations, and no value."""
    if paths:
        places = ", ".join(relations.described(named, path) for path in paths[:_NAMED])
        more = f" and {len(paths) - _NAMED} more files" if len(paths) > _NAMED else ""
        detail = (
            f"Canaries are still in the image, in {places}{more}. Mask these values in the script too, and finalise "
            "again."
        )
        raise JobError("canary_found", detail)
    if canaries:
        rows.add(
            "canaries_absent",
            f"No file of the image contains one of the {len(canaries)} canaries. The search cannot see values that"
            " Postgres stored compressed.",
        )
