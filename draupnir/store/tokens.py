"""The tokens table: sessions and named tokens, by the SHA-256 of their secret."""

from __future__ import annotations

from datetime import datetime

from psycopg.errors import UniqueViolation

from draupnir.callers import Scope, Token, TokenKind
from draupnir.errors import TokenNameTaken
from draupnir.store.database import Database, Row
from draupnir.store.quotas import require_place_for_token

# last_used_at has this resolution, which saves writes.
_USE_NOTED_EVERY = "5 minutes"


class Tokens:
    """Rows of tokens. Expired ones are ignored, and deleted by later inserts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self, owner: str, kind: TokenKind, name: str, scope: Scope, digest: bytes, expires_at: datetime
    ) -> Token:
        """Insert a token. Raises TooManyTokens, or TokenNameTaken if its owner has one of that name."""
        try:
            async with self._database.connection() as connection:
                if kind is TokenKind.NAMED:
                    await require_place_for_token(connection, owner)
                await connection.execute("DELETE FROM tokens WHERE expires_at <= now()")
                cursor = await connection.execute(
                    "INSERT INTO tokens (owner, kind, name, scope, digest, expires_at)"
                    " VALUES (%s, %s, %s, %s, %s, %s) RETURNING *",
                    [owner, kind, name, scope, digest, expires_at],
                )
                (row,) = await cursor.fetchall()
        except UniqueViolation as error:
            raise TokenNameTaken(
                f"You already have a token {name}; choose another name, or revoke that token."
            ) from error
        return _token(row)

    async def use(self, digest: bytes) -> Token | None:
        """Return the token with that digest if it is valid and its owner is not revoked, and record its use."""
        async with self._database.connection() as connection:
            # Only owners with an e-mail address have a row in users. The check is necessary, because a user who was
            # revoked during a sign-in may still exchange the code for a token.
            cursor = await connection.execute(
                "SELECT * FROM tokens WHERE digest = %s AND expires_at > now() AND (owner NOT LIKE '%%@%%'"
                " OR EXISTS (SELECT FROM users WHERE email = owner AND left_at IS NULL))",
                [digest],
            )
            row = await cursor.fetchone()
            if row is None:
                return None
            await connection.execute(
                "UPDATE tokens SET last_used_at = now() WHERE id = %s"
                " AND (last_used_at IS NULL OR last_used_at < now() - %s::interval)",
                [row["id"], _USE_NOTED_EVERY],
            )
        return _token(row)

    async def list_of(self, owner: str) -> list[Token]:
        """Return the sessions and tokens of an owner, by id."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT * FROM tokens WHERE owner = %s AND expires_at > now() ORDER BY id", [owner]
            )
            return [_token(row) async for row in cursor]

    async def delete(self, owner: str, token_id: int) -> bool:
        """Revoke a token. Return False if the owner does not have it."""
        async with self._database.connection() as connection:
            cursor = await connection.execute("DELETE FROM tokens WHERE owner = %s AND id = %s", [owner, token_id])
            return cursor.rowcount == 1

    async def delete_all_of(self, owner: str) -> None:
        """Revoke all tokens of an owner."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM tokens WHERE owner = %s", [owner])


def _token(row: Row) -> Token:
    return Token(
        id=row["id"],
        owner=row["owner"],
        kind=TokenKind(row["kind"]),
        name=row["name"],
        scope=Scope(row["scope"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
    )
