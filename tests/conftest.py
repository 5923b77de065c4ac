"""Fixtures of the daemon's tests: a real Postgres for the metadata, a helper in memory, and a Context with both."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator

import psycopg
import pytest

from draupnir.operations.context import Context
from draupnir.operations.tasks import Tasks
from draupnir.settings import Settings
from draupnir.store import Store
from tests.daemon import settings_on
from tests.fakes import CIPHER, FakeHelper, Probe
from tests.postgres import Cluster, throw_away

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run the daemon only on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Provide one Postgres for the whole run."""
    with throw_away() as running:
        yield running


@pytest.fixture(scope="session")
def migrated_dsn(cluster: Cluster) -> str:
    """Provide a migrated database."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
    store = Store(cluster.dsn("migrated"))

    async def migrate() -> None:
        await store.open()
        await store.close()

    asyncio.run(migrate())
    return cluster.dsn("migrated")


@pytest.fixture
def empty_dsn(cluster: Cluster) -> str:
    """Return the DSN of a separate empty database."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return cluster.dsn(name)


@pytest.fixture(scope="session")
def empty(migrated_dsn: str) -> Iterator[Callable[[], None]]:
    """Delete every row; with few rows this takes a tenth of a TRUNCATE, and one connection a tenth of many."""
    with psycopg.connect(migrated_dsn, autocommit=True, application_name="emptying") as connection:

        def delete() -> None:
            tables = ("events", "addresses", "instances", "images", "users", "tokens", "sign_ins")
            connection.execute(";".join(f"DELETE FROM {table}" for table in tables).encode())

        yield delete


@pytest.fixture
def dsn(migrated_dsn: str, empty: Callable[[], None]) -> str:
    """Provide the DSN of a migrated database without rows; ids continue after the last test."""
    empty()
    return migrated_dsn


@pytest.fixture
def settings(dsn: str) -> Settings:
    """Provide default settings with the test's database."""
    return settings_on(dsn)


@pytest.fixture(scope="session")
async def open_store(migrated_dsn: str) -> AsyncIterator[Store]:
    """Provide one store for the whole run, because its connections take longer than most tests."""
    opened = Store(migrated_dsn)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def store(dsn: str, open_store: Store) -> Store:
    """Return an open store on the test's database."""
    return open_store


@pytest.fixture
def helper() -> FakeHelper:
    """Return a helper with an empty disk."""
    return FakeHelper()


@pytest.fixture
def probe() -> Probe:
    """Provide sign-in probes that find no fault."""
    return Probe()


@pytest.fixture
async def context(settings: Settings, store: Store, helper: FakeHelper, probe: Probe) -> AsyncIterator[Context]:
    """Provide a daemon; cancel its tasks at the end of the test."""
    made = Context(settings, store, helper, Tasks(), probe, helper.wake, cipher=CIPHER)
    yield made
    await made.tasks.close()
