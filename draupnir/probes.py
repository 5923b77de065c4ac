"""The sign-in probes of a trial boot: who must be let in is, and nobody else. Knows psycopg, and no metadata."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from draupnir.errors import ImageFailed
from draupnir.models import Credentials

DEADLINE_S = 60.0
CONNECT_TIMEOUT_S = 10
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5

ROLE = "draupnir"
# The one database that no cluster is without.
DATABASE = "template1"


async def run(port: int, credentials: Credentials, *, deadline_s: float = DEADLINE_S) -> None:
    """Try every way in on 127.0.0.1:`port`, waiting up to the deadline for Postgres to come up.

    Raises ImageFailed("trial_failed") naming the first probe that did not end as it has to.
    """
    with tempfile.TemporaryDirectory(prefix="draupnir-trial-") as name:
        directory = Path(name)
        own = _parameters(directory, port, credentials)
        async with await _sign_in_within(own, deadline_s) as connection:
            await _check_role(connection)
            # The files do not exist, which is how libpq is told to show no certificate.
            nothing = {"sslcert": str(directory / "none.crt"), "sslkey": str(directory / "none.key")}
            await _must_be_refused("a connection without TLS", own | {"sslmode": "disable"})
            await _must_be_refused("a connection without a client certificate", own | nothing)
            await _must_be_refused("the role postgres with draupnir's certificate", own | {"user": "postgres"})
            # A server that has died meanwhile refuses everybody and proves nothing.
            await _query(connection, "SELECT 1")


def _parameters(directory: Path, port: int, credentials: Credentials) -> dict[str, str]:
    files = {
        "sslrootcert": ("ca.crt", credentials.ca_certificate),
        "sslcert": ("client.crt", credentials.client_certificate),
        "sslkey": ("client.key", credentials.client_key),
    }
    for file_name, text in files.values():
        path = directory / file_name
        path.touch(mode=0o600)
        path.write_text(text)
    return {
        "host": "localhost",
        "hostaddr": "127.0.0.1",
        "port": str(port),
        "user": ROLE,
        "dbname": DATABASE,
        "sslmode": "verify-full",
        "gssencmode": "disable",
        "connect_timeout": str(CONNECT_TIMEOUT_S),
        "application_name": "draupnir trial boot",
    } | {key: str(directory / file_name) for key, (file_name, _) in files.items()}


async def _sign_in_within(parameters: Mapping[str, str], deadline_s: float) -> psycopg.AsyncConnection:
    deadline = asyncio.get_running_loop().time() + deadline_s
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return await _connect(parameters)
        except psycopg.OperationalError as error:
            # libpq does not say whether the refusal is for good, so all are taken for a server still on its way up.
            if asyncio.get_running_loop().time() + pause_s > deadline:
                raise _failed(f"draupnir could not sign in within {deadline_s:.0f} s", error) from error
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def _check_role(connection: psycopg.AsyncConnection) -> None:
    if await _query(connection, "SHOW is_superuser") != "off":
        raise ImageFailed("trial_failed", "Trial boot: the role draupnir is a superuser, which it must not be.")
    if not await _query(connection, "SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user"):
        raise ImageFailed("trial_failed", "Trial boot: the role draupnir may not create databases, which it should.")


async def _must_be_refused(what: str, parameters: Mapping[str, str]) -> None:
    try:
        connection = await _connect(parameters)
    except psycopg.OperationalError:
        return
    await connection.close()
    raise ImageFailed("trial_failed", f"Trial boot: {what} was let in, which must not be.")


async def _query(connection: psycopg.AsyncConnection, query: str) -> object:
    try:
        row = await (await connection.execute(query.encode())).fetchone()
    except psycopg.Error as error:
        raise _failed("Postgres went away or refused a plain query", error) from error
    return None if row is None else row[0]


async def _connect(parameters: Mapping[str, str]) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(make_conninfo(**parameters), autocommit=True)


def _failed(what: str, error: psycopg.Error) -> ImageFailed:
    return ImageFailed("trial_failed", f"Trial boot: {what}: {' '.join(str(error).split())}")
