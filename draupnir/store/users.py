"""The users table: users who have signed in, by e-mail address, and whether they are revoked."""

from __future__ import annotations

from draupnir.callers import Identity, User
from draupnir.store.database import Database, Row
from draupnir.store.retention import close_all_of
from draupnir.store.transitions import take_turn


class Users:
    """Rows of users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, identity: Identity, refresh_token: bytes) -> None:
        """Record that a user has signed in, for the first time or again.

        If the provider has assigned the address to another person since, they get no session, token or instance.
        """
        async with take_turn(self._database) as turn:
            connection = turn.connection
            cursor = await connection.execute(
                "SELECT subject FROM users WHERE email = %s AND issuer = %s AND subject <> %s FOR UPDATE",
                [identity.email, identity.issuer, identity.subject],
            )
            if row := await cursor.fetchone():
                await close_all_of(turn, identity.email, identity.issuer, row["subject"])
            await connection.execute(
                "DELETE FROM tokens USING users WHERE tokens.owner = users.email AND users.email = %s"
                " AND (users.issuer, users.subject) <> (%s, %s)",
                [identity.email, identity.issuer, identity.subject],
            )
            await connection.execute(
                "INSERT INTO users (email, issuer, subject, refresh_token) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (email) DO UPDATE SET issuer = excluded.issuer, subject = excluded.subject,"
                " refresh_token = excluded.refresh_token, signed_in_at = now(), checked_at = now(), left_at = NULL,"
                " rotates = NULL, unsettled = false, refused_s = NULL",
                [identity.email, identity.issuer, identity.subject, refresh_token],
            )

    async def get(self, email: str) -> User | None:
        """Return the user, or None."""
        async with self._database.connection() as connection:
            cursor = await connection.execute("SELECT * FROM users WHERE email = %s", [email])
            row = await cursor.fetchone()
        return None if row is None else _user(row)

    async def list_all(self) -> list[User]:
        """Return all users, by address."""
        async with self._database.connection() as connection:
            cursor = await connection.execute("SELECT * FROM users ORDER BY email")
            return [_user(row) async for row in cursor]

    async def list_concerned(self) -> list[User]:
        """Return the active users with instances, sessions or tokens, by address."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT * FROM users WHERE left_at IS NULL AND ("
                " EXISTS (SELECT FROM tokens WHERE owner = email AND expires_at > now())"
                " OR EXISTS (SELECT FROM instances WHERE owner = email AND purpose = 'use' AND status <> 'destroying'))"
                " ORDER BY email"
            )
            return [_user(row) async for row in cursor]

    async def note_unsettled(self, user: User, unsettled: bool) -> None:
        """Record whether the provider may have rotated the user's refresh token without us receiving the new one."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE users SET unsettled = %s WHERE email = %s AND refresh_token = %s",
                [unsettled, user.email, user.refresh_token],
            )

    async def doubt(self, user: User) -> bool:
        """End the sessions of a user, who has to sign in again, and start to count. Return False if that was done."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "UPDATE users SET refused_s = 0 WHERE email = %s AND refresh_token = %s AND refused_s IS NULL",
                [user.email, user.refresh_token],
            )
            if cursor.rowcount == 0:
                return False
            await connection.execute("DELETE FROM tokens WHERE owner = %s AND kind = 'session'", [user.email])
            return True

    async def count_refused(self, elapsed_s: float) -> None:
        """Add this time to all users who have to sign in again."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE users SET refused_s = refused_s + %s WHERE refused_s IS NOT NULL AND left_at IS NULL",
                [elapsed_s],
            )

    async def note_valid(self, user: User, refresh_token: bytes) -> bool:
        """Record that the provider confirmed the user, and the new refresh token.

        Return False if the user has signed in again since.
        """
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "UPDATE users SET refresh_token = %s, checked_at = now(), unsettled = false, refused_s = NULL,"
                " rotates = coalesce(rotates, false) OR %s WHERE email = %s AND refresh_token = %s",
                [refresh_token, refresh_token != user.refresh_token, user.email, user.refresh_token],
            )
            return cursor.rowcount == 1

    async def leave(self, user: User) -> list[int] | None:
        """Revoke a user with all tokens, close their instances, and return the ids of the instances.

        Return None if the user has signed in again since.
        """
        async with take_turn(self._database) as turn:
            connection = turn.connection
            cursor = await connection.execute(
                "UPDATE users SET left_at = now(), refresh_token = ''"
                " WHERE email = %s AND refresh_token = %s AND left_at IS NULL",
                [user.email, user.refresh_token],
            )
            if cursor.rowcount == 0:
                return None
            await connection.execute("DELETE FROM tokens WHERE owner = %s", [user.email])
            return await close_all_of(turn, user.email, user.issuer, user.subject)


def _user(row: Row) -> User:
    return User(
        email=row["email"],
        issuer=row["issuer"],
        subject=row["subject"],
        refresh_token=row["refresh_token"],
        created_at=row["created_at"],
        signed_in_at=row["signed_in_at"],
        checked_at=row["checked_at"],
        left_at=row["left_at"],
        rotates=row["rotates"],
        unsettled=row["unsettled"],
        refused_s=row["refused_s"],
    )
