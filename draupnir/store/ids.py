"""Ids of new rows: the next of a sequence that neither the metadata nor the data disk has; each sequence is a cycle."""

from __future__ import annotations

from collections.abc import Collection

from draupnir.errors import NoFreeId
from draupnir.store.database import Connection

# The number of tries is enough to pass over all that is taken. No more are drawn than are needed: the subquery is not
# merged with the rest, since it calls a volatile function.
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
    """An id that no image has, and none of those that are taken on the disk. Raises NoFreeId."""
    return await _draw(connection, _DRAW_IMAGE, "image_ids", taken)


async def draw_instance_id(connection: Connection, sequence: str, taken: Collection[int]) -> int:
    """An id of the sequence that no instance has, and none of those that are taken on the disk. Raises NoFreeId."""
    return await _draw(connection, _DRAW_INSTANCE, sequence, taken)


async def _draw(connection: Connection, query: bytes, sequence: str, taken: Collection[int]) -> int:
    cursor = await connection.execute(query, {"sequence": sequence, "taken": list(taken), "taken_count": len(taken)})
    row = await cursor.fetchone()
    if row is None:
        raise NoFreeId(
            f"Every id of {sequence} is in use; remove what `draupnir doctor` lists as not in the metadata, then retry."
        )
    return int(row["id"])
