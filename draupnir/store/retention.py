"""The part of the instances table about retention: closes, counts, expires and reopens instances."""

from __future__ import annotations

from draupnir.errors import OwnerUnknown
from draupnir.lifecycles import Kind
from draupnir.models import InstanceStatus, SealedAuthority
from draupnir.store.database import Connection, Database
from draupnir.store.quotas import require_place
from draupnir.store.transitions import Turn, take_turn

_OWNER_IS_BACK = (
    "SELECT FROM instances JOIN users ON users.email = instances.owner AND users.left_at IS NULL"
    " AND (users.issuer, users.subject) = (leaver_issuer, leaver_subject) WHERE instances.id = %s"
)


class Retention:
    """Rows of instances that are closed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count_closed(self, elapsed_s: float) -> None:
        """Add this time to the closed time of all closed instances."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE instances SET closed_s = closed_s + %s WHERE status = 'closed'", [elapsed_s]
            )

    async def expire(self, instance_id: int, grace_s: float) -> bool:
        """Mark an instance for destruction if it was closed for `grace_s`. Return False if it was not."""
        async with take_turn(self._database) as turn:
            expired = await turn.change(
                Kind.INSTANCE,
                [InstanceStatus.CLOSED],
                InstanceStatus.DESTROYING,
                where="id = %(id)s AND closed_s >= %(grace_s)s",
                values={"id": instance_id, "grace_s": grace_s},
            )
            return bool(expired)

    async def reopen(
        self, instance_id: int, authority: SealedAuthority, owner: str | None = None, limit: int | None = None
    ) -> bool:
        """Mark a closed instance as running, with a new authority, and with a new owner if `owner` is given.

        Return False if it is not closed. Raises OwnerUnknown, TooManyInstances.
        """
        async with take_turn(self._database) as turn:
            if owner is not None:
                await require_place(turn.connection, owner, limit)
                await _require_known(turn.connection, owner)
            reopened = await _reopen(turn, instance_id, authority, owner)
            if reopened and owner is not None:
                # The allowlist belonged to the former owner.
                await turn.connection.execute("DELETE FROM addresses WHERE instance_id = %s", [instance_id])
            return reopened

    async def take_back(self, instance_id: int, authority: SealedAuthority) -> bool:
        """Reopen an instance whose owner signed in again. Return False if it is not closed or its owner is revoked."""
        async with take_turn(self._database) as turn:
            connection = turn.connection
            # Lock the owner, who could otherwise be revoked between the check and the change.
            await connection.execute(
                "SELECT FROM users WHERE email = (SELECT owner FROM instances WHERE id = %s) FOR SHARE", [instance_id]
            )
            cursor = await connection.execute(_OWNER_IS_BACK, [instance_id])
            if await cursor.fetchone() is None:
                return False
            return await _reopen(turn, instance_id, authority, None)


async def close_all_of(turn: Turn, owner: str, issuer: str, subject: str) -> list[int]:
    """Close the running instances of an owner with this identity, and destroy those that are still being created."""
    values = {"owner": owner, "issuer": issuer, "subject": subject}
    where = "owner = %(owner)s AND purpose = 'use'"
    also = "closed_s = 0, leaver_issuer = %(issuer)s, leaver_subject = %(subject)s"
    running = [InstanceStatus.RUNNING, InstanceStatus.STOPPED]
    closed = await turn.change(Kind.INSTANCE, running, InstanceStatus.CLOSED, where=where, values=values, also=also)
    creating = [InstanceStatus.CREATING]
    ended = await turn.change(Kind.INSTANCE, creating, InstanceStatus.DESTROYING, where=where, values=values, also=also)
    return [row["id"] for row in closed + ended]


async def _reopen(turn: Turn, instance_id: int, authority: SealedAuthority, owner: str | None) -> bool:
    found = await turn.change(
        Kind.INSTANCE,
        [InstanceStatus.CLOSED],
        InstanceStatus.RUNNING,
        where="id = %(id)s",
        values={
            "id": instance_id,
            "owner": owner,
            "certificate": authority.certificate,
            "key": authority.encrypted_key,
        },
        also="owner = coalesce(%(owner)s, owner), authority_certificate = %(certificate)s, authority_key = %(key)s,"
        " plain_authority_key = NULL, closed_s = NULL, leaver_issuer = NULL, leaver_subject = NULL",
    )
    return bool(found)


async def _require_known(connection: Connection, owner: str) -> None:
    cursor = await connection.execute("SELECT FROM users WHERE email = %s AND left_at IS NULL FOR SHARE", [owner])
    if await cursor.fetchone() is None:
        raise OwnerUnknown(
            f"{owner} has never signed in, or was revoked; correct the address, or ask the user to sign in first."
        )
