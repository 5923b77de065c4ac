"""The connection pool, and the only place that translates psycopg's errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from draupnir.errors import MetadataUnavailable, NoRoom

Connection = psycopg.AsyncConnection[DictRow]
Row = dict[str, Any]

MAX_CONNECTIONS = 8
# A caller waits this long for a connection. The pool's own attempts end sooner. During an attempt, with its growing
# pauses, the pool starts no other, so it would notice a recovered database only after minutes.
PATIENCE_S = 10.0
RECONNECT_S = 5.0


class Database:
    """A connection pool; each use of a connection is one transaction."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: AsyncConnectionPool[Connection] | None = None

    async def open(self) -> None:
        """Connect. Raises MetadataUnavailable."""
        pool = AsyncConnectionPool(
            self._dsn,
            connection_class=Connection,
            kwargs={"row_factory": dict_row, "autocommit": True},
            min_size=1,
            max_size=MAX_CONNECTIONS,
            timeout=PATIENCE_S,
            reconnect_timeout=RECONNECT_S,
            open=False,
        )
        try:
            # Connect once without the pool, because the pool only logs why it cannot connect.
            await (await psycopg.AsyncConnection.connect(self._dsn, connect_timeout=int(PATIENCE_S))).close()
            # Wait, because a query before the pool's first connection exists makes the pool open a second one.
            await pool.open(wait=True, timeout=PATIENCE_S)
        except psycopg.Error as error:
            raise _unavailable(error) from error
        self._pool = pool

    async def close(self) -> None:
        """Close the pool, if it is open."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Run a transaction: commit at the end, roll back after an exception. Raises MetadataUnavailable, NoRoom."""
        if self._pool is None:
            raise MetadataUnavailable("The metadata database is not open yet; try again in a moment.")
        pool = self._pool
        with _no_cancellation_lost():
            try:
                # Skip connections to a server that was restarted; the pool replaces each when it is returned.
                # The pool's own check would cost a round trip each time, and would pause for seconds after each broken
                # connection.
                while True:
                    async with AsyncExitStack() as stack:
                        connection = await pool.getconn()
                        stack.push_async_callback(pool.putconn, connection)
                        await stack.enter_async_context(_closed_if_cancelled(connection))
                        try:
                            await stack.enter_async_context(connection.transaction())
                        except psycopg.OperationalError:
                            continue
                        yield connection
                        return
            except psycopg.errors.DiskFull as error:
                raise NoRoom("The disk of the metadata database is full; free space on it and try again.") from error
            except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction) as error:
                raise _unavailable(error) from error


@asynccontextmanager
async def _closed_if_cancelled(connection: Connection) -> AsyncIterator[None]:
    """Close a connection whose user is cancelled. The pool replaces the connection.

    A cancellation in the middle of BEGIN or COMMIT can leave psycopg and the server with different ideas of a
    transaction. Then each later use would fail, or wait for locks that the connection still holds.
    """
    try:
        yield
    except asyncio.CancelledError:
        await connection.close()
        raise


@contextmanager
def _no_cancellation_lost() -> Iterator[None]:
    """Repeat a lost cancellation: before Python 3.12 asyncio.wait_for, which psycopg uses, may swallow one."""
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        yield
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError


def _unavailable(error: psycopg.Error) -> MetadataUnavailable:
    reason = " ".join(str(error).split()) or type(error).__name__
    return MetadataUnavailable(
        f"The metadata database does not answer ({reason}); see `systemctl status draupnir-metadata`,"
        " or the server that database_url names."
    )
