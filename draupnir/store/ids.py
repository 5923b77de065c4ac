"""Ids of new rows: the next value of a cyclic sequence that is unused in the metadata and on the data disk."""

from __future__ import annotations

from collections.abc import Collection

from draupnir.errors import NoFreeId
from draupnir.store.database import Connection

# The limit of tries is high enough to skip all ids in use. Only as many as necessary are drawn, because Postgres does
# not flatten a subquery that calls a volatile function.
_DRAW = """
SELECT id
  FROM (SELECT nextval(%(sequence)s)::integer AS id
          FROM generate_series(0, %(taken_count)s + (SELECT count(*) FROM {table})::integer)) AS drawn
 WHERE id <> ALL (%(taken)s::integer[]) AND id NOT IN (SELECT id FROM {table})
 LIMIT 1
"""
_DRAW_IMAGE = _DRAW.format(table="images").encode()
_DRAW_INSTANCE = _DRAW.format(table="instances").encode()


async def draw_image_id(connection: Connection, taken: Collection[int]) -> int:
    """Return an image id that is unused in the metadata and not in `taken`. Raises NoFreeId."""
    return await _draw(connection, _DRAW_IMAGE, "image_ids", taken)


async def draw_instance_id(connection: Connection, sequence: str, taken: Collection[int]) -> int:
    """Return an instance id that is unused in the metadata and not in `taken`. Raises NoFreeId."""
    return await _draw(connection, _DRAW_INSTANCE, sequence, taken)


async def _draw(connection: Connection, query: bytes, sequence: str, taken: Collection[int]) -> int:
    cursor = await connection.execute(query, {"sequence": sequence, "taken": list(taken), "taken_count": len(taken)})
    row = await cursor.fetchone()
    if row is None:
        raise NoFreeId(
            f"Every id of {sequence} is in use; remove what `draupnir doctor` lists as not in the metadata, then retry."
        )
    return int(row["id"])
