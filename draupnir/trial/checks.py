"""Checks for the trial boot which roles can log in, which cannot, and what the role draupnir may do.

The server's own statements are not trusted. Its lists of roles and databases only add more attempts.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass

from draupnir.trial import protocol
from draupnir.trial.protocol import Address, PasswordAsked, Refusal, Refused, Session
from draupnir.trial.sign_ins import DATABASE, ROLE, Fault, Way, await_session, open_session

AT_ONCE = 8
INVENTED_NAMES = 10
MAX_LISTED = 100

_FORBIDDEN = frozenset({"42501"})
_NO_SUCH_ROLE = frozenset({"22023", "42704", "22021"})  # the last: its bytes are not in the encoding of the database

_SUPERUSERS = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolsuper LIMIT 100"
_ROLES = "SELECT rolname FROM pg_catalog.pg_roles WHERE NOT rolsuper LIMIT 100"
_SIGNING_IN = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolcanlogin LIMIT 100"
# Direct and indirect members of superusers and of predefined roles that reach beyond SQL.
_MEMBERS_OF_FORBIDDEN = """
    WITH RECURSIVE reached(member, role) AS (
      SELECT member, roleid FROM pg_catalog.pg_auth_members
       UNION SELECT reached.member, further.roleid FROM reached JOIN pg_catalog.pg_auth_members further
          ON further.member OPERATOR(pg_catalog.=) reached.role)
    SELECT m.rolname FROM reached JOIN pg_catalog.pg_roles m ON m.oid OPERATOR(pg_catalog.=) member
      JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) role
     WHERE NOT m.rolsuper AND m.rolname OPERATOR(pg_catalog.<>) 'pg_monitor'
       AND (r.rolsuper OR r.rolname OPERATOR(pg_catalog.~) '^(pg_|draupnir_superusers$)')
       AND r.rolname OPERATOR(pg_catalog.<>) ALL ('{pg_read_all_data,pg_write_all_data,pg_read_all_settings,
           pg_read_all_stats,pg_monitor,pg_stat_scan_tables}') LIMIT 100"""
# The owner can change the connection limit from another database, so a database with limit 0 is not broken.
_DATABASES = (
    "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND datconnlimit OPERATOR(pg_catalog.<>) 0 LIMIT 100"
)


@dataclass(frozen=True, slots=True)
class Ways:
    """The right way to authenticate, the wrong ones, and the superuser, whose own certificate is one of them."""

    right: Way
    wrong: tuple[Way, ...]
    superuser: str
    as_superuser: Way


@dataclass(frozen=True, slots=True)
class Act:
    """A statement of the role draupnir, and the expected SQLSTATEs."""

    text: str
    statement: str
    expected: frozenset[str] = _FORBIDDEN


# Each act needs a superuser. Postgres's own code refuses it, so catalogs of the data cannot fake the refusal.
_ACTS = (
    Act("run a program", "COPY (SELECT) TO PROGRAM 'true'"),
    Act("write a file", "COPY (SELECT) TO '/srv/pgdata/draupnir-trial'"),
    Act("load a library", "LOAD 'pageinspect'"),
    Act("define a function in C", "CREATE FUNCTION pg_temp.trial() RETURNS integer LANGUAGE c AS 'pageinspect'"),
    Act("define an internal function", "CREATE FUNCTION pg_temp.trial() RETURNS text LANGUAGE internal AS 'version'"),
    # From Postgres 16 on draupnir may create roles. Before 16, CREATEROLE includes granting all predefined roles.
    Act("create a superuser", "CREATE ROLE draupnir_trial SUPERUSER"),
    Act("create a role that runs programs", "CREATE ROLE draupnir_trial IN ROLE pg_execute_server_program"),
    Act("create a role for replication", "CREATE ROLE draupnir_trial REPLICATION"),
    Act("create a role without row security", "CREATE ROLE draupnir_trial BYPASSRLS"),
    Act("become a superuser", f"ALTER ROLE {ROLE} SUPERUSER"),
    # From 17 on, a setting on the command line forbids ALTER SYSTEM for all roles.
    Act("change the server's settings", "ALTER SYSTEM SET work_mem = '4MB'", _FORBIDDEN | {"0A000"}),
    Act("change system catalogs", "SET allow_system_table_mods = on"),
    Act(
        "create event triggers",
        "CREATE EVENT TRIGGER draupnir_trial ON ddl_command_end EXECUTE FUNCTION pg_catalog.version()",
    ),
    Act("read a file of the server", "SELECT pg_catalog.pg_read_file('PG_VERSION')"),
    Act("read a binary file of the server", "SELECT pg_catalog.pg_read_binary_file('PG_VERSION')"),
    # A role that may read files gets the error that the table does not exist.
    Act("copy from a file of the server", "COPY draupnir_trial FROM '/srv/pgdata/PG_VERSION'"),
    Act("import a file of the server", "SELECT pg_catalog.lo_import('/srv/pgdata/PG_VERSION')"),
    # A member of pg_read_all_data may read the table, which has no passwords.
    Act("read passwords", "SELECT 1 / count(rolpassword) FROM pg_catalog.pg_authid", _FORBIDDEN | {"22012"}),
)
# The name exists, which Postgres checks only if the role may create databases.
_CREATES_DATABASES = Act("create databases", f"CREATE DATABASE {DATABASE}", frozenset({"42P04"}))


async def run(port: int, ways: Ways) -> None:
    """Run all checks, without a deadline. Raises Fault for the first that fails."""
    here = Address("127.0.0.1", port)
    async with await_session(here, ways.right) as control:
        addresses = [here, *await _other_families(port, ways.right)]
        superusers = {ways.superuser, *await _listed(here, ways.right, _SUPERUSERS)} - {ROLE}
        others = {*await _listed(here, ways.right, _SIGNING_IN), *_invented()} - {ROLE}
        databases = await _listed(here, ways.right, _DATABASES)
        for member in await _listed(here, ways.right, _MEMBERS_OF_FORBIDDEN):
            raise Fault(
                f"the role {member!r} has the rights of a superuser or of a predefined role, and must not have them."
            )
        await _grant_roles_to_superuser(here, ways)
        await _at_once(
            [
                *_refusals(addresses, ways, superusers | others),
                *(_check_database(here, ways, each, superusers) for each in sorted({DATABASE, *databases})),
            ]
        )
        # A server that has crashed would refuse everything, so check that it still runs.
        await _execute(control, "SELECT 1")


def _invented() -> Iterator[str]:
    """Yield invented role names, which match rules for all roles even if the role does not exist."""
    return (f"r{secrets.token_hex(8)}" for _ in range(INVENTED_NAMES))


def _refusals(addresses: Iterable[Address], ways: Ways, roles: Iterable[str]) -> Iterator[Coroutine[None, None, None]]:
    for address in addresses:
        for role in sorted(roles):
            for way in (ways.right, *ways.wrong):
                yield _must_be_refused(address, way, role)
        for way in ways.wrong:
            yield _must_be_refused(address, way, ROLE)
        yield _must_be_refused(address, ways.as_superuser, ways.superuser)
        # Replication has separate rules.
        for role in (ROLE, ways.superuser):
            for way in (ways.right, ways.as_superuser, *ways.wrong):
                yield _must_be_refused(address, way, role, replication=True)


async def _check_database(address: Address, ways: Ways, database: str, superusers: Iterable[str]) -> None:
    """Check one database, because rules, grants and event triggers may apply to a single database."""
    for way in ways.wrong:
        await _must_be_refused(address, way, ROLE, database)
    for way in (ways.right, ways.as_superuser):
        await _must_be_refused(address, way, ways.superuser, database)
    async with open_session(address, ways.right, database) as session:
        for act in (*_becoming(superusers), *_ACTS):
            answer = await _try(session, act)
            if answer not in act.expected:
                how = "it worked" if answer is None else f"SQLSTATE {answer}"
                what = f"may {act.text} in the database {database!r}, which it must not ({how})"
                raise Fault(f"the role {ROLE} {what}.")
        if await _try(session, _CREATES_DATABASES) not in _CREATES_DATABASES.expected:
            raise Fault(f"the role {ROLE} cannot create databases, but it must.")


async def _grant_roles_to_superuser(address: Address, ways: Ways) -> None:
    """Grant all roles that draupnir can grant, because a rule for members of a role would then admit the superuser."""
    roles = await _listed(address, ways.right, _ROLES)
    async with open_session(address, ways.right, DATABASE) as session:
        for role in roles:
            await _try(session, Act("grant a role", f"GRANT {_quoted(role)} TO {_quoted(ways.superuser)}"))


def _becoming(superusers: Iterable[str]) -> Iterator[Act]:
    for name in sorted(superusers):
        yield Act(f"become {name!r}", f"SET ROLE {_quoted(name)}", _FORBIDDEN | _NO_SUCH_ROLE)
        yield Act(f"become {name!r}", f"SET SESSION AUTHORIZATION {_quoted(name)}", _FORBIDDEN | _NO_SUCH_ROLE)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def _try(session: Session, act: Act) -> str | None:
    """Return the SQLSTATE of the act, or None if it succeeds."""
    try:
        await session.execute(act.statement)
    except Refused as refused:
        if isinstance(refused.reason, Refusal):
            raise Fault(f"the server did not survive the attempt to {act.text}: {refused.text}.") from refused
        return refused.reason
    return None


async def _must_be_refused(
    address: Address, way: Way, role: str, database: str = DATABASE, *, replication: bool = False
) -> None:
    what = f"the role {role!r} {way.text}"
    if replication:
        what += " for replication"
    if database != DATABASE:
        what += f" to the database {database!r}"
    what += f" on {address.host}"
    session = None
    try:
        session = await protocol.connect(address, way.tls)
        await session.authenticate(role, database, replication=replication)
    except Refused as refused:
        if refused.reason in {Refusal.UNREACHABLE, Refusal.NONSENSE}:
            raise Fault(f"{what} could not be tried: {refused.text}.") from refused
        return
    except PasswordAsked:
        raise Fault(f"{what} was asked for a password, but must be refused.") from None
    finally:
        if session is not None:
            session.close()
    raise Fault(f"{what} could sign in, but must be refused.")


async def _listed(address: Address, way: Way, query: str) -> list[str]:
    """Return the server's list, at most as long as the query's limit."""
    async with open_session(address, way, DATABASE) as session:
        try:
            found = await session.first_column(query, MAX_LISTED)
        except Refused as refused:
            raise Fault(f"the server does not list its roles and databases: {refused.text}.") from refused
    # NUL, which ends a text in the protocol, cannot be in a name of Postgres.
    return [name for name in found if name and "\0" not in name]


async def _other_families(port: int, way: Way) -> list[Address]:
    """Return the IPv6 address, or nothing if the machine has no IPv6."""
    address = Address("::1", port)
    try:
        (await protocol.connect(address, None)).close()
    except Refused:
        return []
    async with open_session(address, way, DATABASE):
        return [address]


async def _execute(session: Session, statement: str) -> None:
    try:
        await session.execute(statement)
    except Refused as refused:
        raise Fault(f"Postgres closed the connection during the trial: {refused.text}.") from refused


async def _at_once(attempts: Iterable[Coroutine[None, None, None]]) -> None:
    """Run all attempts in order, a few at a time. Raises the first Fault."""
    waiting = list(reversed(list(attempts)))

    async def in_turn() -> None:
        while waiting:
            await waiting.pop()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(in_turn())
    except* Fault as faults:
        raise faults.exceptions[0] from None
    finally:
        for attempt in waiting:
            attempt.close()
