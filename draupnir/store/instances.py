"""The instances table: each port belongs to at most one row, and each row to an image that may have instances."""

from __future__ import annotations

from collections.abc import Callable, Collection

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from draupnir.errors import ImageNotReady, NoFreePort, NotFound, Unauthorized
from draupnir.lifecycles import INSTANCES, Kind
from draupnir.models import (
    Authority,
    FinaliseStep,
    Fullness,
    ImageStatus,
    Instance,
    InstanceStatus,
    Network,
    Purpose,
    Retained,
    SealedAuthority,
    Shape,
)
from draupnir.store.database import Connection, Database, Row
from draupnir.store.ids import draw_instance_id
from draupnir.store.quotas import require_place
from draupnir.store.transitions import Turn, take_turn

_SELECT = (
    "SELECT instances.*, images.postgres_major, images.settings AS image_settings, images.superuser, images.database,"
    " users.email IS NOT NULL AS owner_is_back"
    " FROM instances JOIN images ON images.id = instances.image_id"
    " LEFT JOIN users ON users.email = instances.owner AND users.left_at IS NULL"
    " AND (users.issuer, users.subject) = (leaver_issuer, leaver_subject) "
)
# Closed instances are visible only to callers who can access those of all users.
_USED_BY = "purpose = 'use' AND (%(owner)s::text IS NULL OR owner = %(owner)s AND instances.status <> 'closed')"
_FREE_PORT = (
    "SELECT port FROM generate_series(%(first)s::integer, %(last)s::integer) AS port"
    " WHERE port <> ALL (%(avoided)s::integer[])"
    " AND NOT EXISTS (SELECT FROM instances WHERE instances.port = port.port)"
    " ORDER BY random() LIMIT 1"
)
_INSERT = """
INSERT INTO instances
       (id, image_id, owner, purpose, status, port, sleep_after_s, network, max_bytes, settings, is_superuser,
        authority_certificate, authority_key)
VALUES (%(id)s, %(image_id)s, %(owner)s, %(purpose)s, 'creating', %(port)s, %(sleep_after_s)s, %(network)s,
        %(max_bytes)s, %(settings)s, %(is_superuser)s, %(certificate)s, %(key)s)
    ON CONFLICT (port) DO NOTHING
RETURNING id
"""
_SEQUENCES = {Purpose.USE: "instance_ids", Purpose.POOL: "instance_ids", Purpose.TRIAL: "trial_ids"}


# The statuses from which an instance can be destroyed.
_LIVING = tuple(before for before, after in INSTANCES if after == InstanceStatus.DESTROYING and before is not None)

# The store calls this with the id of the new instance.
Seal = Callable[[int], SealedAuthority]


class Instances:
    """Rows of instances, each with the Postgres major of its image."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self,
        image_id: int,
        owner: str,
        purpose: Purpose,
        shape: Shape,
        seal: Seal,
        ports: range,
        limit: int | None,
        taken_ids: Collection[int],
    ) -> Instance:
        """Insert an instance with status creating, a random free port, and an id not in `taken_ids`.

        The image is locked until the row exists. It has to be at the trial step for a trial, else ready. The owner's
        limit includes the new instance. Raises NotFound, ImageNotReady, NoFreePort, NoFreeId, TooManyInstances,
        Unauthorized.
        """
        async with take_turn(self._database) as turn:
            connection = turn.connection
            await require_place(connection, owner, limit)
            await _require_image(connection, image_id, purpose)
            await _require_present(connection, owner)
            instance_id = await draw_instance_id(connection, _SEQUENCES[purpose], taken_ids)
            sealed = seal(instance_id)
            values = {
                "id": instance_id,
                "image_id": image_id,
                "owner": owner,
                "purpose": purpose,
                **_columns(shape),
                "certificate": sealed.certificate,
                "key": sealed.encrypted_key,
            }
            # No row means that a concurrent insert took the port, so each retry follows another's success.
            while True:
                values["port"] = await _free_port(connection, ports, avoided=())
                cursor = await connection.execute(_INSERT, values)
                if await cursor.fetchone():
                    break
            cursor = await connection.execute(f"{_SELECT} WHERE instances.id = %(id)s".encode(), values)
            (found,) = await cursor.fetchall()
            await turn.made(Kind.INSTANCE, found)
            return _instance(found)

    async def claim(self, image_id: int, owner: str, shape: Shape, limit: int | None) -> Instance | None:
        """Assign an instance of the pool to an owner, preferably a running one. Never assign the same one twice.

        Raises TooManyInstances, Unauthorized.
        """
        async with take_turn(self._database) as turn:
            connection = turn.connection
            await require_place(connection, owner, limit)
            await _require_present(connection, owner)
            cursor = await connection.execute(
                "UPDATE instances SET purpose = 'use', owner = %s, created_at = now(), updated_at = now()"
                " WHERE id = (SELECT id FROM instances WHERE image_id = %s AND purpose = 'pool'"
                " AND sleep_after_s = %s AND network = %s AND max_bytes IS NOT DISTINCT FROM %s AND settings = %s"
                " AND is_superuser = %s AND status IN ('running', 'creating')"
                " ORDER BY status DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED)"
                " RETURNING id, status, owner",
                [owner, image_id, *_columns(shape).values()],
            )
            row = await cursor.fetchone()
            if row is not None:
                await turn.claimed(row)
        return None if row is None else await self.get(row["id"])

    async def give_up_pooled(self, instance_id: int) -> bool:
        """Mark an instance of the pool for destruction. Return False if it was claimed since."""
        return await self._change(instance_id, _LIVING, InstanceStatus.DESTROYING, where="purpose = 'pool'")

    async def get(self, instance_id: int) -> Instance | None:
        """Return the instance, or None."""
        found = await self._list("WHERE instances.id = %s", [instance_id])
        return found[0] if found else None

    async def get_used(self, instance_id: int, owner: str | None) -> Instance | None:
        """Return the instance if the owner can use it. `owner` is None for any owner."""
        found = await self._list(f"WHERE instances.id = %(id)s AND {_USED_BY}", {"id": instance_id, "owner": owner})
        return found[0] if found else None

    async def list_used(self, owner: str | None) -> list[Instance]:
        """Return the instances that the owner can use, by id. `owner` is None for any owner."""
        return await self._list(f"WHERE {_USED_BY}", {"owner": owner})

    async def list_all(self) -> list[Instance]:
        """Return all instances, including those of trials, by id."""
        return await self._list("", [])

    async def list_of_image(self, image_id: int) -> list[Instance]:
        """Return all instances of an image, including those of trials, by id."""
        return await self._list("WHERE image_id = %s", [image_id])

    async def move(self, instance: Instance, ports: range, avoided: Collection[int]) -> Instance | None:
        """Change the port of an instance that is being created to one not in `avoided`. Raises NoFreePort."""
        while True:
            try:
                async with self._database.connection() as connection:
                    port = await _free_port(connection, ports, avoided)
                    await connection.execute(
                        "UPDATE instances SET port = %s, updated_at = now() WHERE id = %s AND status = 'creating'",
                        [port, instance.id],
                    )
            except UniqueViolation:
                continue
            return await self.get(instance.id)

    async def change_status(self, instance_id: int, before: InstanceStatus, after: InstanceStatus) -> bool:
        """Change the status from `before` to `after`, and return whether it was `before`."""
        return await self._change(instance_id, [before], after)

    async def replace_plain_keys(self, seal: Callable[[int, Authority], SealedAuthority]) -> int:
        """Encrypt all plain-text keys in one transaction; return their number."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT id, authority_certificate, plain_authority_key FROM instances"
                " WHERE plain_authority_key IS NOT NULL FOR UPDATE"
            )
            plain = await cursor.fetchall()
            for row in plain:
                sealed = seal(row["id"], Authority(row["authority_certificate"], row["plain_authority_key"]))
                await connection.execute(
                    "UPDATE instances SET plain_authority_key = NULL, authority_key = %s WHERE id = %s",
                    [sealed.encrypted_key, row["id"]],
                )
            if plain:
                # Rewrite the table's file, which would otherwise contain the plain keys until they are overwritten.
                await connection.execute(
                    "ALTER TABLE instances ALTER COLUMN authority_key TYPE bytea USING authority_key || ''::bytea"
                )
        return len(plain)

    async def begin_destroying(self, instance_id: int) -> None:
        """Mark the instance for destruction, from any status."""
        await self._change(instance_id, _LIVING, InstanceStatus.DESTROYING)

    async def delete(self, instance_id: int) -> None:
        """Delete the row of an instance whose destruction is complete, which frees its port."""
        async with take_turn(self._database) as turn:
            await turn.delete(Kind.INSTANCE, instance_id, InstanceStatus.DESTROYING)

    async def _change(
        self,
        instance_id: int,
        befores: Collection[str],
        after: InstanceStatus,
        *,
        where: str = "true",
    ) -> bool:
        async with take_turn(self._database) as turn:
            where, values = f"id = %(id)s AND {where}", {"id": instance_id}
            return bool(await turn.change(Kind.INSTANCE, befores, after, where=where, values=values))

    async def _list(self, where: str, values: list[object] | dict[str, object]) -> list[Instance]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(f"{_SELECT} {where} ORDER BY instances.id".encode(), values)
            return [_instance(row) async for row in cursor]


async def destroy_all_of(turn: Turn, image_id: int) -> None:
    """Mark all instances of an image for destruction."""
    await turn.change(
        Kind.INSTANCE,
        _LIVING,
        InstanceStatus.DESTROYING,
        where="image_id = %(image_id)s",
        values={"image_id": image_id},
    )


async def _require_present(connection: Connection, owner: str) -> None:
    """Lock the owner's row until the instance exists, so that a revocation happens before or after."""
    cursor = await connection.execute("SELECT left_at FROM users WHERE email = %s FOR SHARE", [owner])
    row = await cursor.fetchone()
    if row is not None and row["left_at"] is not None:
        raise Unauthorized(f"The identity provider no longer confirms {owner}; sign in again.")


async def _require_image(connection: Connection, image_id: int, purpose: Purpose) -> None:
    cursor = await connection.execute("SELECT status, step FROM images WHERE id = %s FOR SHARE", [image_id])
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"Image {image_id} not found.")
    if purpose is Purpose.TRIAL:
        allowed = row["step"] == FinaliseStep.TRIAL
    else:
        allowed = row["status"] == ImageStatus.READY
    if not allowed:
        raise ImageNotReady(
            f"Image {image_id} is {row['status']}, and instances are made of ready images only;"
            f" `draupnir-client images show {image_id}` has its state."
        )


def _columns(shape: Shape) -> dict[str, object]:
    return {
        "sleep_after_s": shape.sleep_after_s,
        "network": shape.network,
        "max_bytes": shape.max_bytes,
        "settings": Jsonb(shape.parameters),
        "is_superuser": shape.superuser,
    }


async def _free_port(connection: Connection, ports: range, avoided: Collection[int]) -> int:
    cursor = await connection.execute(
        _FREE_PORT.encode(), {"first": ports.start, "last": ports.stop - 1, "avoided": list(avoided)}
    )
    row = await cursor.fetchone()
    if row is None:
        raise NoFreePort(
            f"All ports from {ports.start} to {ports.stop - 1} are in use; destroy an instance,"
            " or widen min_instance_port and max_instance_port in /etc/draupnir/config.toml."
        )
    return int(row["port"])


def _instance(row: Row) -> Instance:
    status = InstanceStatus(row["status"])
    return Instance(
        id=row["id"],
        image_id=row["image_id"],
        owner=row["owner"],
        purpose=Purpose(row["purpose"]),
        status=status,
        port=row["port"],
        postgres_major=row["postgres_major"],
        shape=Shape(
            row["sleep_after_s"], Network(row["network"]), row["max_bytes"], row["settings"], row["is_superuser"]
        ),
        image_parameters=row["image_settings"],
        authority=SealedAuthority(row["authority_certificate"], row["authority_key"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        fullness=Fullness(row["is_full"], row["reserve_granted"]),
        superuser=row["superuser"],
        database=row["database"],
        stop_reason=row["stop_reason"] if status is InstanceStatus.STOPPED else None,
        retained=Retained(row["closed_s"], row["owner_is_back"]) if status is InstanceStatus.CLOSED else None,
    )
