"""The addresses table: the allowlist of each instance, with a maximum length and an expiry for each entry."""

from __future__ import annotations

from draupnir.addresses import Cidr
from draupnir.errors import TooManyAddresses
from draupnir.models import AddressOrigin, AllowedAddress
from draupnir.store.database import Connection, Database, Row
from draupnir_helper.wire import MAX_ADDRESSES


class Addresses:
    """Rows of addresses. Expired ones are ignored, and deleted by later changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def see(self, instance_id: int, network: Cidr, ttl_s: int) -> bool:
        """Record an address of the owner for at least `ttl_s`; return whether it is new on the list.

        On a full list it replaces the `seen` entry that expires first. If the owner added all entries, it is dropped.
        """
        async with self._database.connection() as connection:
            if await _is_full(connection, instance_id, network):
                await connection.execute(
                    "DELETE FROM addresses WHERE instance_id = %(id)s AND network = (SELECT network FROM addresses"
                    " WHERE instance_id = %(id)s AND origin = 'seen' ORDER BY expires_at LIMIT 1)",
                    {"id": instance_id},
                )
                if await _is_full(connection, instance_id, network):
                    return False
            cursor = await connection.execute(
                "INSERT INTO addresses (instance_id, network, origin, expires_at)"
                " VALUES (%s, %s, 'seen', now() + make_interval(secs => %s)) ON CONFLICT (instance_id, network)"
                " DO UPDATE SET expires_at = greatest(addresses.expires_at, excluded.expires_at)"
                " RETURNING xmax = 0 AS inserted",
                [instance_id, network, ttl_s],
            )
            (row,) = await cursor.fetchall()
            return bool(row["inserted"])

    async def add(self, instance_id: int, network: Cidr, ttl_s: int) -> AllowedAddress:
        """Add a network to the list for `ttl_s`, or replace its entry. Raises TooManyAddresses."""
        async with self._database.connection() as connection:
            if await _is_full(connection, instance_id, network):
                raise TooManyAddresses(
                    f"Instance {instance_id} has {MAX_ADDRESSES} addresses already, which is the maximum;"
                    " remove one, or add a network that contains several."
                )
            cursor = await connection.execute(
                "INSERT INTO addresses (instance_id, network, origin, expires_at)"
                " VALUES (%s, %s, 'added', now() + make_interval(secs => %s)) ON CONFLICT (instance_id, network)"
                " DO UPDATE SET origin = excluded.origin, expires_at = excluded.expires_at RETURNING *",
                [instance_id, network, ttl_s],
            )
            (row,) = await cursor.fetchall()
            return _address(row)

    async def remove(self, instance_id: int, network: Cidr) -> bool:
        """Remove a network from the list. Return False if it is not on it."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "DELETE FROM addresses WHERE instance_id = %s AND network = %s AND expires_at > now()",
                [instance_id, network],
            )
            return cursor.rowcount == 1

    async def list_of(self, instance_id: int) -> list[AllowedAddress]:
        """Return the addresses of one instance, in order."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT * FROM addresses WHERE instance_id = %s AND expires_at > now() ORDER BY network", [instance_id]
            )
            return [_address(row) async for row in cursor]

    async def list_all(self) -> dict[int, list[AllowedAddress]]:
        """Return the addresses of all instances that have any."""
        found: dict[int, list[AllowedAddress]] = {}
        async with self._database.connection() as connection:
            cursor = await connection.execute("SELECT * FROM addresses WHERE expires_at > now() ORDER BY network")
            async for row in cursor:
                found.setdefault(row["instance_id"], []).append(_address(row))
        return found


async def _is_full(connection: Connection, instance_id: int, network: Cidr) -> bool:
    """Lock the list, delete expired entries, and return whether the network does not fit."""
    await connection.execute("SELECT FROM instances WHERE id = %s FOR NO KEY UPDATE", [instance_id])
    await connection.execute("DELETE FROM addresses WHERE instance_id = %s AND expires_at <= now()", [instance_id])
    cursor = await connection.execute(
        "SELECT count(*) AS others FROM addresses WHERE instance_id = %s AND network <> %s", [instance_id, network]
    )
    (row,) = await cursor.fetchall()
    return int(row["others"]) >= MAX_ADDRESSES


def _address(row: Row) -> AllowedAddress:
    return AllowedAddress(row["network"], AddressOrigin(row["origin"]), row["expires_at"])
