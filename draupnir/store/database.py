"""The pool of connections, and the one place where psycopg's errors become ours."""

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
# How long a caller waits for a connection. The pool's own attempts end sooner: while one lasts, with ever longer
# pauses, it would start no other, and a database that came back would go unnoticed for minutes.
PATIENCE_S = 10.0
RECONNECT_S = 5.0


class Database:
    """A pool that is opened once; each use of a connection is one transaction."""

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
            # The pool keeps the reason why it cannot connect to the log, so this is asked first.
            await (await psycopg.AsyncConnection.connect(self._dsn, connect_timeout=int(PATIENCE_S))).close()
            # A query before the pool's first connection exists makes the pool open a second one.
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
        """One transaction: committed at the end, rolled back by an exception. Raises MetadataUnavailable, NoRoom."""
        if self._pool is None:
            raise MetadataUnavailable("The metadata database is not open yet; try again in a moment.")
        pool = self._pool
        with _no_cancellation_lost():
            try:
                # Connections to a server that was restarted are passed over, each being replaced as it is given back.
                # The pool could check by itself, but that is one more question to the server each time, and it pauses
                # for seconds after each that it finds broken.
                while True:
                    async with AsyncExitStack() as stack:
                        connection = await pool.getconn()
                        stack.push_async_callback(pool.putconn, connection)
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


@contextmanager
def _no_cancellation_lost() -> Iterator[None]:
    """Before Python 3.12 asyncio.wait_for, with which psycopg waits, loses one that comes together with an answer."""
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
