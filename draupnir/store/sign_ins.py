"""The sign_ins table: people on their way through the identity provider; each step can be taken once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from draupnir.store.database import Database

# One network alone cannot begin so many before the first of them have expired (api/limits.py).
MAX_PENDING = 1000


@dataclass(frozen=True, slots=True)
class Pending:
    """A sign-in that is back from the provider: whose code it will take, and where the client listens, if it does."""

    id: int
    code_challenge: str
    loopback_port: int | None


class SignIns:
    """Rows of sign-ins under way; those that have expired count as gone and are swept out by the next one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self, link_digest: bytes, code_challenge: str, loopback_port: int | None, lifetime: timedelta
    ) -> None:
        """A client wants to sign somebody in.

        Where too many do, the oldest that no browser has followed yet gives way: it is the likeliest to be nobody's.
        """
        async with self._database.connection() as connection:
            # Two at once would both find room for one.
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
        """A browser has followed the link, which is used up; False if it was, or has expired."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "UPDATE sign_ins SET link_digest = NULL, browser_digest = %s, state_digest = %s"
                " WHERE link_digest = %s AND expires_at > now()",
                [browser_digest, state_digest, link_digest],
            )
            return cursor.rowcount == 1

    async def come_back(self, state_digest: bytes, browser_digest: bytes) -> Pending | None:
        """The same browser is back from the provider, and the state is used; None if there is no sign-in."""
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
        """The provider has said who it is; the client gets its token for the code."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE sign_ins SET email = %s, code_digest = %s, expires_at = now() + %s WHERE id = %s",
                [email, code_digest, lifetime, pending.id],
            )

    async def redeem(self, code_digest: bytes) -> tuple[str, str] | None:
        """The address behind a code, and the challenge that its client has to meet; the code is used up."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "DELETE FROM sign_ins WHERE code_digest = %s"
                " RETURNING email, code_challenge, expires_at > now() AS valid",
                [code_digest],
            )
            row = await cursor.fetchone()
        return (row["email"], row["code_challenge"]) if row is not None and row["valid"] else None

    async def abandon(self, pending: Pending) -> None:
        """The provider said no, and nothing more will come."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM sign_ins WHERE id = %s", [pending.id])
