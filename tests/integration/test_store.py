from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import psycopg
import pytest

from draupnir.errors import ImageNotReady, MetadataUnavailable, NoFreeId, NoRoom
from draupnir.models import Failure, FinaliseStep, ImageStatus, InstanceStatus, Purpose, SealedAuthority, Shape
from draupnir.store import Store, migrate
from draupnir.store.database import MAX_CONNECTIONS, Database
from tests.daemon import BACKED_UP_AT, until
from tests.postgres import Cluster

pytestmark = pytest.mark.anyio


def seal(instance_id: int) -> SealedAuthority:
    return SealedAuthority("certificate", f"key of {instance_id}".encode())


async def test_many_daemons_may_migrate_at_once(empty_dsn: str) -> None:
    stores = [Store(empty_dsn) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    image = await stores[0].images.insert(BACKED_UP_AT, "", ())
    assert [await store.images.get(image.id) for store in stores] == [image] * 4
    for store in stores:
        await store.close()
    again = Store(empty_dsn)
    await again.open()
    assert await again.images.list_all() == [image]
    await again.close()


async def test_a_schema_newer_than_the_program_is_refused(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO migrations (number) VALUES (9000)")
    store = Store(dsn)
    with pytest.raises(migrate.SchemaTooNew, match=r"schema 9000, .* install the newer version"):
        await store.open()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM migrations WHERE number = 9000")
    await store.open()
    await store.close()


async def test_a_schema_check_changes_nothing(empty_dsn: str, dsn: str) -> None:
    advice = r"(?s)schema 0, .* wait a few seconds; .* `systemctl restart draupnir"
    with pytest.raises(migrate.SchemaTooOld, match=advice):
        await Store(empty_dsn).open(migrating=False)
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("SELECT FROM pg_tables WHERE schemaname = 'public'").fetchall() == []
    store = Store(dsn)
    await store.open(migrating=False)
    assert await store.images.list_all() == []
    await store.close()


async def test_a_migration_that_breaks_leaves_nothing(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = migrate.migrations()
    monkeypatch.setattr(migrate, "migrations", lambda: whole | {2: "CREATE TABLE half (id integer); SELECT 1/0"})
    with pytest.raises(psycopg.errors.DivisionByZero):
        await Store(empty_dsn).open()
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("SELECT FROM pg_tables WHERE schemaname = 'public'").fetchall() == []


async def test_raw_rows_of_older_versions_leave_the_metadata(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = migrate.migrations()
    monkeypatch.setattr(migrate, "migrations", lambda: {n: sql for n, sql in whole.items() if n < 8})
    store = Store(empty_dsn)
    await store.open()
    await store.close()
    with psycopg.connect(empty_dsn) as connection:
        row = connection.execute(
            "INSERT INTO images (status, backed_up_at, anonymisation_script, failure_code, failure_detail)"
            " VALUES ('failed', now(), '', 'script_failed', %s) RETURNING id",
            ["It failed.\nDETAIL: Failing row contains (7)."],
        ).fetchone()
    assert row is not None
    monkeypatch.undo()
    await store.open()
    found = await store.images.get(row[0])
    assert found is not None
    assert found.failure == Failure("script_failed", "It failed.")
    await store.close()


@pytest.mark.parametrize("dsn_of_nothing", ["host=/nonexistent dbname=draupnir", "nonsense", "postgresql://[::1]:1/x"])
async def test_a_missing_database_is_unavailable(dsn_of_nothing: str) -> None:
    store = Store(dsn_of_nothing)
    with pytest.raises(MetadataUnavailable, match="not open yet"):
        await store.ping()
    with pytest.raises(MetadataUnavailable, match="draupnir-metadata"):
        await store.open()


async def test_a_restart_of_the_database_causes_no_error(store: Store, cluster: Cluster, dsn: str) -> None:
    await asyncio.gather(*(store.ping() for _ in range(4)))
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        # All sessions except the one that empties the tables before each test.
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name <> 'emptying'",
            [name],
        )
    await store.ping()


@pytest.mark.parametrize("attempt", range(5))
async def test_a_cancellation_is_never_lost_whenever_it_comes(dsn: str, attempt: int) -> None:
    """Each attempt cancels at another moment, so that some coincide with the server's answer.

    The pool's connections work afterwards, all of them.
    """
    store = Store(dsn)
    await store.open(migrating=False)
    for steps in itertools.count():
        asking = asyncio.create_task(store.ping())
        for _ in range(steps):
            await asyncio.sleep(0)
        if not asking.cancel():
            break
        await asyncio.wait([asking])
        assert asking.cancelled(), steps
        await asyncio.gather(*(store.ping() for _ in range(MAX_CONNECTIONS)))
    await store.close()
    assert steps > 5


async def test_errors_of_postgres_become_errors_of_the_service(dsn: str) -> None:
    database = Database(dsn)
    await database.open()
    for sqlstate, error in {
        "53100": NoRoom,
        "25006": MetadataUnavailable,
        "57P01": MetadataUnavailable,
        "58030": MetadataUnavailable,
    }.items():
        with pytest.raises(error):
            async with database.connection() as connection:
                await connection.execute(f"DO $$ BEGIN RAISE SQLSTATE '{sqlstate}'; END $$".encode())
    await database.close()


async def test_only_one_caller_takes_a_step(store: Store) -> None:
    image = await store.images.insert(BACKED_UP_AT, "", ())
    begun = await asyncio.gather(*(store.images.begin_finalising(image.id, "") for _ in range(5)))
    (one,) = [it for it in begun if it is not None]
    moved = await asyncio.gather(*(store.images.move_to_step(one, FinaliseStep.EXTRACT, "") for _ in range(5)))
    assert sum(it is not None for it in moved) == 1
    assert await store.images.mark_ready(one) is None
    assert await store.images.note_progress(one, "", 1, 2) is None


async def test_running_is_reached_from_creating_only(store: Store) -> None:
    instance = await ready_with_instance(store)
    assert await store.instances.change_status(instance, InstanceStatus.CREATING, InstanceStatus.RUNNING)
    assert not await store.instances.change_status(instance, InstanceStatus.CREATING, InstanceStatus.RUNNING)
    await store.instances.delete(instance)
    assert await store.instances.get(instance) is not None
    await store.instances.begin_destroying(instance)
    assert not await store.instances.change_status(instance, InstanceStatus.CREATING, InstanceStatus.RUNNING)
    await store.instances.delete(instance)
    assert await store.instances.get(instance) is None


async def test_ids_are_never_given_twice(store: Store) -> None:
    first = await store.images.insert(BACKED_UP_AT, "", ())
    await store.images.begin_destroying(first.id, cascade=False)
    await store.images.delete(first.id)
    assert (await store.images.insert(BACKED_UP_AT, "", ())).id > first.id


async def test_without_a_free_id_nothing_is_made(empty_dsn: str) -> None:
    store = Store(empty_dsn)
    await store.open()
    with psycopg.connect(empty_dsn) as connection:
        connection.execute("ALTER SEQUENCE image_ids MAXVALUE 4")
    made = [(await store.images.insert(BACKED_UP_AT, "", {2, 9})).id for _ in range(2)]
    made.append((await store.images.insert(BACKED_UP_AT, "", {2})).id)
    assert made == [1, 3, 4]
    with pytest.raises(NoFreeId, match="image_ids"):
        await store.images.insert(BACKED_UP_AT, "", {2})
    assert (await store.images.insert(BACKED_UP_AT, "", ())).id == 2
    await store.close()


async def test_an_image_that_is_being_destroyed_gets_no_instance(store: Store, dsn: str) -> None:
    first = await store.instances.get(await ready_with_instance(store))
    assert first is not None
    with psycopg.connect(dsn) as destroyer, psycopg.connect(dsn, autocommit=True) as watcher:
        destroyer.execute("UPDATE images SET status = 'destroying' WHERE id = %s", [first.image_id])
        creating = asyncio.create_task(
            store.instances.insert(first.image_id, "upload", Purpose.USE, Shape(0), seal, range(2001, 2002), None, ())
        )

        async def waits() -> bool:
            query = "SELECT FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
            return watcher.execute(query, [destroyer.info.backend_pid]).fetchone() is not None

        await until(waits)
        destroyer.commit()
        with pytest.raises(ImageNotReady):
            await creating


async def ready_with_instance(store: Store) -> int:
    image = await store.images.insert(BACKED_UP_AT, "", ())
    at = await store.images.begin_finalising(image.id, "")
    assert at is not None
    at = await store.images.move_to_step(at, FinaliseStep.TRIAL, "", postgres_major=15)
    assert at is not None
    ready = await store.images.mark_ready(at)
    assert ready is not None
    assert ready.status is ImageStatus.READY
    return (
        await store.instances.insert(image.id, "upload", Purpose.USE, Shape(0), seal, range(2000, 2001), None, ())
    ).id


def test_every_migration_has_a_unique_number() -> None:
    files = sorted((Path(migrate.__file__).parent / "migrations").glob("*.sql"))
    assert len(migrate.migrations()) == len(files)
