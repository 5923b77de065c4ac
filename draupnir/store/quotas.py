"""How many instances and named tokens one owner may have, held by a lock on the owner, so that many requests at once
cannot pass it.
"""

from __future__ import annotations

from draupnir.errors import TooManyInstances, TooManyTokens
from draupnir.store.database import Connection

# Any number that no other program uses with two-part advisory locks in this database.
_LOCK = 0x64_72_61_76
MAX_NAMED_TOKENS = 100
# So many are named; a person who has more than that looks at the list.
MAX_NAMED = 20

# What is being destroyed counts no more; what the service has stopped does. A closed instance counts for its very owner
# who has signed in again, and is about to have it back; not for somebody else who was given their address.
_IDS = (
    "SELECT instances.id FROM instances LEFT JOIN users ON users.email = instances.owner AND users.left_at IS NULL"
    " AND (users.issuer, users.subject) = (leaver_issuer, leaver_subject)"
    " WHERE owner = %s AND purpose = 'use'"
    " AND (status IN ('creating', 'running', 'stopped') OR status = 'closed' AND users.email IS NOT NULL)"
    " ORDER BY instances.id"
)


async def require_place(connection: Connection, owner: str, limit: int | None) -> None:
    """Hold the owner until the end of the transaction, so that one more instance of theirs stays within the limit.

    To be called before anything else is locked; does nothing without a limit. Raises TooManyInstances.
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
    """Hold the owner until the end of the transaction, so that they may have one more named token.

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
