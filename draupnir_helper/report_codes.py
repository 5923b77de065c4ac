"""The codes in the report of an image, each with its meaning. They are stable, because programs compare them.

Must import nothing but the standard library: a job starts faster without pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping

# Keep it sorted. docs/OPERATORS.md has the same table; a test compares them.
CODES: Mapping[str, str] = {
    "file_dropped": "A file in the data directory that Postgres does not know; the image does not contain it.",
}
