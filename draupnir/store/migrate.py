"""Applies numbered SQL files, each once, in one transaction with its number, and by one daemon at a time."""

from __future__ import annotations

import re
from importlib.resources import files

from draupnir.errors import MetadataUnavailable
from draupnir.store.database import Connection, Database

# An arbitrary number that no other program uses as an advisory lock in this database.
_LOCK = 0x64_72_61_75


class SchemaTooNew(MetadataUnavailable):
    """A newer version has migrated this database, so this one cannot use it."""


class SchemaTooOld(MetadataUnavailable):
    """This version's daemon has not migrated this database yet."""


def migrations() -> dict[int, str]:
    """Return the SQL of each migration by its number, ascending."""
    found = {}
    for file in files("draupnir.store").joinpath("migrations").iterdir():
        if number := re.fullmatch(r"(\d{4})_[a-z0-9_]+\.sql", file.name):
            found[int(number[1])] = file.read_text(encoding="utf-8")
    return dict(sorted(found.items()))


async def check(database: Database) -> None:
    """Compare the schema with this version's, without changes. Raises SchemaTooNew, SchemaTooOld."""
    known = migrations()
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT to_regclass('migrations') IS NOT NULL AS present")
        row = await cursor.fetchone()
        applied = await _applied(connection) if row is not None and row["present"] else set()
    _require_known(applied, known)
    if known.keys() - applied:
        raise SchemaTooOld(
            f"The metadata database has schema {max(applied, default=0)}, this version of Draupnir needs {max(known)}."
            " The daemon migrates the database when it starts. If it has just started, wait a few seconds; otherwise"
            " run `systemctl restart draupnir`."
        )


async def run(database: Database) -> None:
    """Apply missing migrations. Raises SchemaTooNew, MetadataUnavailable."""
    known = migrations()
    async with database.connection() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations"
            " (number integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = await _applied(connection)
        _require_known(applied, known)
        for number, sql in known.items():
            if number not in applied:
                await connection.execute(sql.encode())
                await connection.execute("INSERT INTO migrations (number) VALUES (%s)", [number])


async def _applied(connection: Connection) -> set[int]:
    cursor = await connection.execute("SELECT number FROM migrations")
    return {row["number"] for row in await cursor.fetchall()}


def _require_known(applied: set[int], known: dict[int, str]) -> None:
    if unknown := applied - known.keys():
        raise SchemaTooNew(
            f"The metadata database has schema {max(unknown)}, this version of Draupnir knows {max(known)};"
            " install the newer version again, or restore an older backup of the database."
        )
