"""Signs in to the server of a trial boot as the role draupnir, which must succeed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from draupnir.trial import protocol
from draupnir.trial.protocol import Address, PasswordAsked, Refusal, Refused, Session

ROLE = "draupnir"
# Every cluster has this database.
DATABASE = "template1"
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5

# A starting server refuses with 57P03, or systemd's proxy cannot connect yet. Other errors are permanent.
_STARTING = frozenset({Refusal.UNREACHABLE, Refusal.CLOSED, "57P03"})

# These override settings of a role or a database that could change the result of a check. In this encoding, names
# arrive as the bytes under which a session finds them.
_OWN_SETTINGS = (
    "-c role=none -c search_path=pg_catalog -c default_transaction_read_only=off -c statement_timeout=0"
    " -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c client_encoding=SQL_ASCII -c exit_on_error=off"
)


class Fault(Exception):
    """The image must not be used. The text ends a sentence."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to authenticate; `tls` is None for an unencrypted connection."""

    text: str
    tls: ssl.SSLContext | None


@asynccontextmanager
async def open_session(address: Address, way: Way, database: str) -> AsyncIterator[Session]:
    """Log in as draupnir, which must succeed."""
    try:
        session = await _sign_in(address, way, database)
    except (Refused, PasswordAsked) as error:
        raise _could_not_sign_in(error, f" to the database {database!r} on {address.host}") from error
    try:
        yield session
    finally:
        session.close()


@asynccontextmanager
async def await_session(address: Address, way: Way) -> AsyncIterator[Session]:
    """Log in as draupnir when the server has started."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            session = await _sign_in(address, way, DATABASE)
        except (Refused, PasswordAsked) as error:
            if isinstance(error, PasswordAsked) or error.reason not in _STARTING:
                raise _could_not_sign_in(error, "") from error
        else:
            break
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    try:
        yield session
    finally:
        session.close()


async def _sign_in(address: Address, way: Way, database: str) -> Session:
    session = await protocol.connect(address, way.tls)
    try:
        await session.authenticate(ROLE, database, options=_OWN_SETTINGS)
        await session.await_ready()
    except BaseException:
        session.close()
        raise
    return session


def _could_not_sign_in(error: Refused | PasswordAsked, where: str) -> Fault:
    why = error.text if isinstance(error, Refused) else "the server asked for a password"
    return Fault(f"the role {ROLE} could not sign in{where}: {why}.")
