"""The instances table: a port belongs to one row at most, and a row to an image that may have instances."""

from __future__ import annotations

from collections.abc import Collection

from psycopg.errors import UniqueViolation

from draupnir.errors import ImageNotReady, NoFreePort, NotFound
from draupnir.models import (
    Authority,
    FinaliseStep,
    Habits,
    ImageStatus,
    Instance,
    InstanceStatus,
    Network,
    Purpose,
)
from draupnir.store.database import Connection, Database, Row, pass_over

_SELECT = "SELECT instances.*, images.postgres_major FROM instances JOIN images ON images.id = instances.image_id "
_USED_BY = "purpose = 'use' AND owner = coalesce(%s, owner)"
_FREE_PORT = (
    "SELECT port FROM generate_series(%(first)s::integer, %(last)s::integer) AS port"
    " WHERE port <> ALL (%(avoided)s::integer[])"
    " AND NOT EXISTS (SELECT FROM instances WHERE instances.port = port.port)"
    " ORDER BY random() LIMIT 1"
)
_SEQUENCES = {Purpose.USE: "instance_ids", Purpose.POOL: "instance_ids", Purpose.TRIAL: "trial_ids"}


class Instances:
    """Rows of instances, each with the Postgres major of its image."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self, image_id: int, owner: str, purpose: Purpose, habits: Habits, authority: Authority, ports: range
    ) -> Instance:
        """A new instance being created, on a free port chosen at random.

        The image is locked until the row is there: for a trial it has to be at that step, otherwise ready.
        Raises NotFound, ImageNotReady, NoFreePort.
        """
        values = {
            "image_id": image_id,
            "owner": owner,
            "purpose": purpose,
            "sequence": _SEQUENCES[purpose],
            "sleep_after_s": habits.sleep_after_s,
            "network": habits.network,
            "certificate": authority.certificate,
            "key": authority.key,
        }
        async with self._database.connection() as connection:
            await _require_image(connection, image_id, purpose)
            while True:
                port = await _free_port(connection, ports, avoided=())
                cursor = await connection.execute(
                    "INSERT INTO instances"
                    " (id, image_id, owner, purpose, status, port, sleep_after_s, network, authority_certificate,"
                    " authority_key)"
                    " VALUES (nextval(%(sequence)s), %(image_id)s, %(owner)s, %(purpose)s, 'creating', %(port)s,"
                    " %(sleep_after_s)s, %(network)s, %(certificate)s, %(key)s)"
                    " ON CONFLICT (port) DO NOTHING RETURNING id",
                    values | {"port": port},
                )
                # No row means that somebody took the port a moment ago, so every turn is another's success.
                if row := await cursor.fetchone():
                    cursor = await connection.execute(f"{_SELECT} WHERE instances.id = %s".encode(), [row["id"]])
                    (found,) = await cursor.fetchall()
                    return _instance(found)

    async def pass_over(self, ids: Collection[int]) -> None:
        """Give none of these ids, and none below, to a new instance."""
        async with self._database.connection() as connection:
            await pass_over(connection, set(_SEQUENCES.values()), ids)

    async def claim(self, image_id: int, owner: str, habits: Habits) -> Instance | None:
        """Give an instance of the pool to its owner, one that runs rather than one being created; never one twice."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "UPDATE instances SET purpose = 'use', owner = %s, created_at = now(), updated_at = now()"
                " WHERE id = (SELECT id FROM instances WHERE image_id = %s AND purpose = 'pool'"
                " AND sleep_after_s = %s AND network = %s"
                " AND status IN ('running', 'creating') ORDER BY status DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED)"
                " RETURNING id",
                [owner, image_id, habits.sleep_after_s, habits.network],
            )
            row = await cursor.fetchone()
        return None if row is None else await self.get(row["id"])

    async def give_up_pooled(self, instance_id: int) -> bool:
        """Mean an instance of the pool to be gone; False if somebody has claimed it meanwhile."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "UPDATE instances SET status = 'destroying', updated_at = now()"
                " WHERE id = %s AND purpose = 'pool' AND status <> 'destroying'",
                [instance_id],
            )
            return cursor.rowcount == 1

    async def get(self, instance_id: int) -> Instance | None:
        """The instance, if there is one."""
        found = await self._list("WHERE instances.id = %s", [instance_id])
        return found[0] if found else None

    async def get_used(self, instance_id: int, owner: str | None) -> Instance | None:
        """The instance, if it is there for the owner to use; None is any owner."""
        found = await self._list(f"WHERE instances.id = %s AND {_USED_BY}", [instance_id, owner])
        return found[0] if found else None

    async def list_used(self, owner: str | None) -> list[Instance]:
        """The instances that the owner has for use, by id; None is any owner."""
        return await self._list(f"WHERE {_USED_BY}", [owner])

    async def list_all(self) -> list[Instance]:
        """All instances, those of trials too, by id."""
        return await self._list("", [])

    async def list_of_image(self, image_id: int) -> list[Instance]:
        """All instances of an image, those of trials too, by id."""
        return await self._list("WHERE image_id = %s", [image_id])

    async def move(self, instance: Instance, ports: range, avoided: Collection[int]) -> Instance | None:
        """Give an instance that is being created another port, none of `avoided`. Raises NoFreePort."""
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
        """Compare and swap; whether the status was `before`."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "UPDATE instances SET status = %s, updated_at = now() WHERE id = %s AND status = %s",
                [after, instance_id, before],
            )
            return cursor.rowcount == 1

    async def begin_destroying(self, instance_id: int) -> None:
        """Mean the instance to be gone, whatever it is now."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE instances SET status = 'destroying', updated_at = now()"
                " WHERE id = %s AND status <> 'destroying'",
                [instance_id],
            )

    async def delete(self, instance_id: int) -> None:
        """Forget an instance that was being destroyed; its port is free from now on."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM instances WHERE id = %s AND status = 'destroying'", [instance_id])

    async def _list(self, where: str, values: list[object]) -> list[Instance]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(f"{_SELECT} {where} ORDER BY instances.id".encode(), values)
            return [_instance(row) async for row in cursor]


async def _require_image(connection: Connection, image_id: int, purpose: Purpose) -> None:
    cursor = await connection.execute("SELECT status, step FROM images WHERE id = %s FOR SHARE", [image_id])
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"There is no image {image_id}.")
    if purpose is Purpose.TRIAL:
        allowed = row["step"] == FinaliseStep.TRIAL
    else:
        allowed = row["status"] == ImageStatus.READY
    if not allowed:
        raise ImageNotReady(
            f"Image {image_id} is {row['status']}, and instances are made of ready images only;"
            f" `draupnir-client images show {image_id}` tells what it waits for."
        )


async def _free_port(connection: Connection, ports: range, avoided: Collection[int]) -> int:
    cursor = await connection.execute(
        _FREE_PORT.encode(), {"first": ports.start, "last": ports.stop - 1, "avoided": list(avoided)}
    )
    row = await cursor.fetchone()
    if row is None:
        raise NoFreePort(
            f"All ports from {ports.start} to {ports.stop - 1} are taken; destroy an instance,"
            " or widen min_instance_port and max_instance_port in /etc/draupnir/config.toml."
        )
    return int(row["port"])


def _instance(row: Row) -> Instance:
    return Instance(
        id=row["id"],
        image_id=row["image_id"],
        owner=row["owner"],
        purpose=Purpose(row["purpose"]),
        status=InstanceStatus(row["status"]),
        port=row["port"],
        postgres_major=row["postgres_major"],
        habits=Habits(row["sleep_after_s"], Network(row["network"])),
        authority=Authority(row["authority_certificate"], row["authority_key"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
