"""The part of the instances table about ceilings: records reached ceilings, and stops for writing too much."""

from __future__ import annotations

from draupnir.lifecycles import Kind
from draupnir.models import Fullness, InstanceStatus
from draupnir.store.database import Database
from draupnir.store.transitions import take_turn


class Ceilings:
    """Rows of instances for the disk watch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_running(self) -> list[tuple[int, int | None, Fullness]]:
        """Return id, ceiling and fullness of each running instance; cheap."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT id, max_bytes, is_full, reserve_granted FROM instances WHERE status = 'running' ORDER BY id"
            )
            return [
                (row["id"], row["max_bytes"], Fullness(row["is_full"], row["reserve_granted"])) async for row in cursor
            ]

    async def note_fullness(self, instance_id: int, fullness: Fullness) -> None:
        """Record whether the instance has reached its ceiling."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE instances SET is_full = %s, reserve_granted = %s, updated_at = now() WHERE id = %s",
                [fullness.full, fullness.reserve_granted, instance_id],
            )

    async def stop(self, instance_id: int, reason: str) -> bool:
        """Mark a running instance as stopped, with the reason. Return False if it is not running."""
        async with take_turn(self._database) as turn:
            stopped = await turn.change(
                Kind.INSTANCE,
                [InstanceStatus.RUNNING],
                InstanceStatus.STOPPED,
                where="id = %(id)s",
                values={"id": instance_id, "reason": reason},
                also="stop_reason = %(reason)s",
            )
            return bool(stopped)
