"""Changes a status and writes the event in the same transaction. No other statement changes a status.

A lock serialises the changes. So events are committed in the order of their ids, and a reader of later events misses
none. The lock is taken before all others, which prevents deadlocks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from draupnir import audit, lifecycles
from draupnir.lifecycles import CHANGES, Event, Kind
from draupnir.store.database import Connection, Database, Row

# An arbitrary number that no other program uses for one-part advisory locks in this database.
_LOCK = 0x64_72_61_76_6E_69_72
_TABLES = {Kind.IMAGE: "images", Kind.INSTANCE: "instances"}
# Only the stores' own code sets `where` and `also`.
_CHANGE = """
WITH old AS (SELECT id, status FROM {table} WHERE status = ANY(%(befores)s) AND ({where}) ORDER BY id FOR UPDATE)
UPDATE {table} AS changed SET status = %(after)s, updated_at = now(){also}
  FROM old WHERE changed.id = old.id
RETURNING changed.*, old.status AS status_before
"""
_DELETE = "DELETE FROM {table} WHERE id = %s AND status = %s RETURNING *"
_TELL = """
INSERT INTO events (kind, subject_id, name, before, after, owner, caller, reason, request_id)
VALUES (%(kind)s, %(subject_id)s, %(name)s, %(before)s, %(after)s, %(owner)s, %(caller)s, %(reason)s, %(request_id)s)
RETURNING *
"""


@dataclass(slots=True)
class Turn:
    """A transaction that may change statuses."""

    connection: Connection
    events: list[Event] = field(default_factory=list)

    async def change(
        self,
        kind: Kind,
        befores: Collection[str],
        after: str,
        *,
        where: str,
        values: Mapping[str, Any],
        also: str = "",
        reason: str | None = None,
    ) -> list[Row]:
        """Change the status of rows that match `where` and have one of `befores`; return the changed rows.

        `also` sets more columns, such as `step = NULL`. Raises KeyError for a change that is not in the life cycle.
        """
        names = {before: CHANGES[kind][before, after].name for before in befores}
        query = _CHANGE.format(table=_TABLES[kind], where=where, also=f", {also}" if also else "")
        parameters = {**values, "befores": list(befores), "after": after}
        cursor = await self.connection.execute(query.encode(), parameters)
        rows = await cursor.fetchall()
        for row in sorted(rows, key=lambda row: int(row["id"])):
            before = row["status_before"]
            await self._tell(kind, row, names[before], before, after, reason)
        return rows

    async def made(self, kind: Kind, row: Row) -> None:
        """Write the event of an inserted row."""
        await self._tell(kind, row, CHANGES[kind][None, row["status"]].name, None, row["status"], None)

    async def claimed(self, row: Row) -> None:
        """Write the event of an instance of the pool that got its owner."""
        await self._tell(Kind.INSTANCE, row, lifecycles.CLAIMED, row["status"], row["status"], None)

    async def delete(self, kind: Kind, subject_id: int, before: str) -> None:
        """Delete the row if it has that status, and write the event."""
        query = _DELETE.format(table=_TABLES[kind])
        cursor = await self.connection.execute(query.encode(), [subject_id, before])
        for row in await cursor.fetchall():
            await self._tell(kind, row, CHANGES[kind][before, None].name, before, None, None)

    async def _tell(
        self, kind: Kind, row: Row, name: str, before: str | None, after: str | None, reason: str | None
    ) -> None:
        origin = audit.origin.get()
        cursor = await self.connection.execute(
            _TELL,
            {
                "kind": kind,
                "subject_id": row["id"],
                "name": name,
                "before": before,
                "after": after,
                "owner": row.get("owner"),
                "caller": origin.caller,
                "reason": origin.reason if reason is None else reason,
                "request_id": origin.request_id,
            },
        )
        (told,) = await cursor.fetchall()
        self.events.append(event(told))


@asynccontextmanager
async def take_turn(database: Database) -> AsyncIterator[Turn]:
    """Run a transaction after all earlier turns; after the commit, write its events to the audit log.

    Raises MetadataUnavailable, NoRoom.
    """
    async with database.connection() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        turn = Turn(connection)
        yield turn
    for each in turn.events:
        audit.record_event(audit.origin.get(), each)


def event(row: Row) -> Event:
    """Convert a row of the events table."""
    return Event(**{**row, "kind": Kind(row["kind"])})
