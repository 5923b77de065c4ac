"""The events table: changes of images and instances; only transitions.py writes it."""

from __future__ import annotations

from draupnir.lifecycles import Event, Kind
from draupnir.store.database import Database
from draupnir.store.transitions import event

# The oldest events are deleted above this number. A row has about 150 bytes.
MAX_KEPT = 200_000

_SELECT = """
SELECT * FROM events
 WHERE id > %(after)s AND (%(kind)s::text IS NULL OR kind = %(kind)s AND subject_id = %(subject_id)s)
   AND (%(person)s::text IS NULL OR owner = %(person)s OR caller = %(person)s)
 ORDER BY {order} LIMIT %(limit)s
"""
_FIRST = _SELECT.format(order="id").encode()
_LAST = _SELECT.format(order="id DESC").encode()


class Events:
    """Rows of events, in order. A user sees events of their own instances and actions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_after(self, event_id: int, person: str | None, limit: int) -> list[Event]:
        """Return the first events after that id; `person` None is all users."""
        return await self._list(_FIRST, event_id, None, person, limit)

    async def list_last(self, person: str | None, limit: int) -> list[Event]:
        """Return the last events; `person` None is all users."""
        return (await self._list(_LAST, 0, None, person, limit))[::-1]

    async def list_of(self, kind: Kind, subject_id: int, person: str | None, limit: int) -> list[Event]:
        """Return the last events of one image or instance; `person` None is all users."""
        return (await self._list(_LAST, 0, (kind, subject_id), person, limit))[::-1]

    async def prune(self) -> None:
        """Delete the oldest events above the maximum."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - %s", [MAX_KEPT])

    async def _list(
        self, query: bytes, after: int, subject: tuple[Kind, int] | None, person: str | None, limit: int
    ) -> list[Event]:
        kind, subject_id = subject or (None, None)
        values = {"after": after, "kind": kind, "subject_id": subject_id, "person": person, "limit": limit}
        async with self._database.connection() as connection:
            cursor = await connection.execute(query, values)
            return [event(row) async for row in cursor]
