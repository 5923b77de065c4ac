"""The sign_ins table: pending sign-ins. Each step can be done once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from draupnir.store.database import Database

# A single network cannot start this many before the first ones expire (api/limits.py).
MAX_PENDING = 1000


@dataclass(frozen=True, slots=True)
class Pending:
    """A sign-in after the provider's redirect: the client's code challenge, and its port if it listens."""

    id: int
    code_challenge: str
    loopback_port: int | None


class SignIns:
    """Rows of pending sign-ins. Expired ones are ignored, and the next sign-in deletes them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self, link_digest: bytes, code_challenge: str, loopback_port: int | None, lifetime: timedelta
    ) -> None:
        """Insert a sign-in.

        If there are too many, delete the oldest whose link was not followed, which is the most likely to be abandoned.
        """
        async with self._database.connection() as connection:
            # Without the lock, two concurrent inserts could both take the last place.
            await connection.execute("LOCK TABLE sign_ins IN SHARE ROW EXCLUSIVE MODE")
            await connection.execute("DELETE FROM sign_ins WHERE expires_at <= now()")
            await connection.execute(
                "DELETE FROM sign_ins WHERE id IN (SELECT id FROM sign_ins ORDER BY link_digest IS NULL, id"
                " LIMIT (SELECT greatest(count(*) - %s, 0) FROM sign_ins))",
                [MAX_PENDING - 1],
            )
            await connection.execute(
                "INSERT INTO sign_ins (link_digest, code_challenge, loopback_port, expires_at)"
                " VALUES (%s, %s, %s, now() + %s)",
                [link_digest, code_challenge, loopback_port, lifetime],
            )

    async def open(self, link_digest: bytes, browser_digest: bytes, state_digest: bytes) -> bool:
        """Use the link for a browser. Return False if it was used already or has expired."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "UPDATE sign_ins SET link_digest = NULL, browser_digest = %s, state_digest = %s"
                " WHERE link_digest = %s AND expires_at > now()",
                [browser_digest, state_digest, link_digest],
            )
            return cursor.rowcount == 1

    async def come_back(self, state_digest: bytes, browser_digest: bytes) -> Pending | None:
        """Use the state for the browser that got it, and return its sign-in. Return None if there is none."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "UPDATE sign_ins SET state_digest = NULL"
                " WHERE state_digest = %s AND browser_digest = %s AND expires_at > now()"
                " RETURNING id, code_challenge, loopback_port",
                [state_digest, browser_digest],
            )
            row = await cursor.fetchone()
        return None if row is None else Pending(row["id"], row["code_challenge"], row["loopback_port"])

    async def vouch(self, pending: Pending, email: str, code_digest: bytes, lifetime: timedelta) -> None:
        """Record the identity that the provider confirmed, and the code for which the client gets its token."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE sign_ins SET email = %s, code_digest = %s, expires_at = now() + %s WHERE id = %s",
                [email, code_digest, lifetime, pending.id],
            )

    async def redeem(self, code_digest: bytes) -> tuple[str, str] | None:
        """Use up a code, and return its e-mail address and code challenge. Return None if it is unknown or expired."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "DELETE FROM sign_ins WHERE code_digest = %s"
                " RETURNING email, code_challenge, expires_at > now() AS valid",
                [code_digest],
            )
            row = await cursor.fetchone()
        return (row["email"], row["code_challenge"]) if row is not None and row["valid"] else None

    async def abandon(self, pending: Pending) -> None:
        """Delete a sign-in that the provider refused."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM sign_ins WHERE id = %s", [pending.id])
