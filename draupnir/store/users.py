"""The users table: people who have signed in, by their e-mail address."""

from __future__ import annotations

from draupnir.models import Identity, User
from draupnir.store.database import Database, Row


class Users:
    """Rows of users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, identity: Identity, refresh_token: bytes) -> None:
        """Note that somebody has signed in, for the first time or again.

        An address that the provider has given to somebody else meanwhile takes no session or token along.
        """
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM tokens USING users WHERE tokens.owner = users.email AND users.email = %s"
                " AND (users.issuer, users.subject) <> (%s, %s)",
                [identity.email, identity.issuer, identity.subject],
            )
            await connection.execute(
                "INSERT INTO users (email, issuer, subject, refresh_token) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (email) DO UPDATE SET issuer = excluded.issuer, subject = excluded.subject,"
                " refresh_token = excluded.refresh_token, signed_in_at = now()",
                [identity.email, identity.issuer, identity.subject, refresh_token],
            )

    async def get(self, email: str) -> User | None:
        """The user, if they ever signed in."""
        async with self._database.connection() as connection:
            cursor = await connection.execute("SELECT * FROM users WHERE email = %s", [email])
            row = await cursor.fetchone()
        return None if row is None else _user(row)

    async def list_all(self) -> list[User]:
        """All users, by address."""
        async with self._database.connection() as connection:
            cursor = await connection.execute("SELECT * FROM users ORDER BY email")
            return [_user(row) async for row in cursor]

    async def renew(self, user: User, refresh_token: bytes) -> bool:
        """Put another refresh token in place of the user's; False if they have signed in again meanwhile."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "UPDATE users SET refresh_token = %s WHERE email = %s AND refresh_token = %s",
                [refresh_token, user.email, user.refresh_token],
            )
            return cursor.rowcount == 1


def _user(row: Row) -> User:
    return User(
        email=row["email"],
        issuer=row["issuer"],
        subject=row["subject"],
        refresh_token=row["refresh_token"],
        created_at=row["created_at"],
        signed_in_at=row["signed_in_at"],
    )
