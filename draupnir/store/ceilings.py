"""What of the instances table concerns their ceilings: who has met theirs, and who was stopped for writing."""

from __future__ import annotations

from draupnir.lifecycles import Kind
from draupnir.models import Fullness, InstanceStatus
from draupnir.store.database import Database
from draupnir.store.transitions import take_turn


class Ceilings:
    """Rows of instances, as the watch over the disk sees them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_running(self) -> list[tuple[int, int | None, Fullness]]:
        """Of each instance that runs its id, its ceiling, and whether it has met it; cheap."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT id, max_bytes, is_full, reserve_granted FROM instances WHERE status = 'running' ORDER BY id"
            )
            return [
                (row["id"], row["max_bytes"], Fullness(row["is_full"], row["reserve_granted"])) async for row in cursor
            ]

    async def note_fullness(self, instance_id: int, fullness: Fullness) -> None:
        """Write down whether it has met its ceiling."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE instances SET is_full = %s, reserve_granted = %s, updated_at = now() WHERE id = %s",
                [fullness.full, fullness.reserve_granted, instance_id],
            )

    async def stop(self, instance_id: int, reason: str) -> bool:
        """Mean a running instance to be stopped, for that reason; False if it does not run any more."""
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
