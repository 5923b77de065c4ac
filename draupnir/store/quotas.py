"""Enforces the limits of instances and named tokens for one owner, with a lock for concurrent requests."""

from __future__ import annotations

from draupnir.errors import TooManyInstances, TooManyTokens
from draupnir.store.database import Connection

# An arbitrary number that no other program uses for two-part advisory locks in this database.
_LOCK = 0x64_72_61_76
MAX_NAMED_TOKENS = 100
# The error lists at most this many instances.
MAX_NAMED = 20

# Stopped instances count, those in destruction do not. A closed instance counts if its owner has signed in again, and
# will get it back. It does not count for another user to whom the provider assigned the same e-mail address.
_IDS = (
    "SELECT instances.id FROM instances LEFT JOIN users ON users.email = instances.owner AND users.left_at IS NULL"
    " AND (users.issuer, users.subject) = (leaver_issuer, leaver_subject)"
    " WHERE owner = %s AND purpose = 'use'"
    " AND (status IN ('creating', 'running', 'stopped') OR status = 'closed' AND users.email IS NOT NULL)"
    " ORDER BY instances.id"
)


async def require_place(connection: Connection, owner: str, limit: int | None) -> None:
    """Lock the owner until the end of the transaction, and check that one more instance is within the limit.

    Call it before any other lock. Does nothing without a limit. Raises TooManyInstances.
    """
    if limit is None:
        return
    await _lock(connection, owner)
    cursor = await connection.execute(_IDS, [owner])
    ids = [row["id"] async for row in cursor]
    if len(ids) >= limit:
        named = ", ".join(map(str, ids[:MAX_NAMED])) + (", …" if len(ids) > MAX_NAMED else "")
        raise TooManyInstances(
            f"{owner} has {len(ids)} instances, and max_instances_per_user allows {limit}: {named}."
            " Destroy an unused one with `draupnir-client instances destroy ID`."
        )


async def require_place_for_token(connection: Connection, owner: str) -> None:
    """Lock the owner until the end of the transaction, and check that one more named token is within the limit.

    Raises TooManyTokens.
    """
    await _lock(connection, owner)
    cursor = await connection.execute(
        "SELECT count(*) AS found FROM tokens WHERE owner = %s AND kind = 'named' AND expires_at > now()", [owner]
    )
    (row,) = await cursor.fetchall()
    if row["found"] >= MAX_NAMED_TOKENS:
        raise TooManyTokens(
            f"{owner} has {MAX_NAMED_TOKENS} named tokens, which is the maximum; list them with"
            " `draupnir-client tokens list`, and revoke unused ones."
        )


async def _lock(connection: Connection, owner: str) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_LOCK, owner])
