"""The sign-in probes against a real Postgres with TLS, configured like an instance, with one fault at a time."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from draupnir import certificates, probes
from draupnir.errors import ImageFailed
from draupnir.models import Authority
from tests.postgres import Cluster, binaries, give_away, throw_away

pytestmark = pytest.mark.anyio

RIGHT = "host all +draupnir_superusers all reject\nhostssl all all all cert"
ONLY_A_HANG_REACHES_S = 300


@pytest.fixture(scope="module")
def authority() -> Authority:
    return certificates.create_authority()


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Cluster]:
    with throw_away() as cluster:
        identity = certificates.issue_server(authority, "db.example.org")
        texts = {"ca.crt": authority.certificate, "server.crt": identity.certificate, "server.key": identity.key}
        for name, text in texts.items():
            write(cluster.data / name, text)
        execute(cluster, "CREATE ROLE draupnir LOGIN CREATEDB", "CREATE DATABASE other OWNER draupnir")
        execute(cluster, "CREATE ROLE draupnir_superusers", "GRANT draupnir_superusers TO postgres")
        execute(cluster, "ALTER SYSTEM SET ssl = 'on'", "ALTER SYSTEM SET ssl_ca_file = 'ca.crt'")
        yield cluster


def execute(server: Cluster, *statements: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    give_away(path)


def allow(server: Cluster, *lines: str) -> None:
    write(server.data / "pg_hba.conf", "\n".join(["local all postgres trust", *lines, ""]))
    before = loaded_at(server)
    execute(server, "SELECT pg_reload_conf()")
    # A new backend has the configuration of the postmaster.
    while loaded_at(server) == before:
        pass


def loaded_at(server: Cluster) -> object:
    with psycopg.connect(server.dsn()) as connection:
        return connection.execute("SELECT pg_conf_load_time()").fetchone()


async def probe(port: int, authority: Authority, deadline_s: float = probes.DEADLINE_S) -> None:
    async with asyncio.timeout(ONLY_A_HANG_REACHES_S):
        await probes.Probes(deadline_s)(port, authority, "postgres")


def children() -> set[int]:
    """Return the trial processes that this process started."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in listed if b"draupnir.trial" in Path(f"/proc/{pid}/cmdline").read_bytes()}


async def test_a_correct_server_passes(server: Cluster, authority: Authority) -> None:
    allow(server, RIGHT)
    await probe(server.port, authority)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([RIGHT, "hostnossl all draupnir all trust"], "'draupnir' without TLS .*could sign in"),
        (["hostssl all all all cert"], "'postgres' with a certificate of its own .*could sign in"),
        # A rule for the members of a group: draupnir can grant a role of the group to the superuser.
        (
            ["hostssl all draupnir all cert", "hostssl all +people all cert"],
            "'postgres' with a certificate of its own .*could sign in",
        ),
        (["hostssl all draupnir all trust"], "'draupnir' without a client certificate .*could sign in"),
        (["hostssl all postgres all trust", RIGHT], "'postgres' .*could sign in"),
        (["hostssl all hidden all trust", RIGHT], "'hidden' .*could sign in"),
        (
            [RIGHT, "host all draupnir,postgres,hidden all reject", "host all all all trust"],
            "'r[0-9a-f]{16}' .*could sign in",
        ),
        ([RIGHT, "host all all 127.0.0.1/32 trust"], "could sign in"),
        ([RIGHT, "host other all all trust"], "to the database 'other' .*could sign in"),
        ([RIGHT, "host replication all all trust"], "for replication .*could sign in"),
        ([RIGHT, "host all all all md5"], "was asked for a password"),
    ],
)
async def test_an_open_access_is_named(server: Cluster, authority: Authority, lines: list[str], says: str) -> None:
    execute(server, "CREATE ROLE hidden SUPERUSER", "CREATE ROLE people", "CREATE ROLE app IN ROLE people")
    execute(server, "GRANT app TO draupnir WITH ADMIN OPTION")
    try:
        allow(server, *lines)
        with pytest.raises(ImageFailed, match=says) as raised:
            await probe(server.port, authority)
        assert raised.value.code == "trial_failed"
    finally:
        execute(server, "DROP ROLE hidden, people, app")


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
async def test_an_open_access_through_ipv6_is_named(server: Cluster, authority: Authority) -> None:
    allow(server, RIGHT, "host all all ::1/128 trust")
    with pytest.raises(ImageFailed, match="on ::1 could sign in"):
        await probe(server.port, authority)


@pytest.mark.parametrize(
    ("change", "back", "says"),
    [
        ("ALTER ROLE draupnir SUPERUSER", "ALTER ROLE draupnir NOSUPERUSER", "may become 'postgres'"),
        ("ALTER ROLE draupnir NOCREATEDB", "ALTER ROLE draupnir CREATEDB", "cannot create databases"),
        # From 16 on, CREATEROLE reaches no predefined role, and draupnir has it.
        pytest.param(
            "ALTER ROLE draupnir CREATEROLE",
            "ALTER ROLE draupnir NOCREATEROLE; DROP ROLE IF EXISTS draupnir_trial",
            "may create a role that runs programs",
            marks=pytest.mark.skipif(int(binaries().parent.name) >= 16, reason="only before Postgres 16"),
        ),
        ("GRANT postgres TO draupnir", "REVOKE postgres FROM draupnir", "could not sign in: SQLSTATE 28000"),
        (
            "GRANT pg_execute_server_program TO draupnir",
            "REVOKE pg_execute_server_program FROM draupnir",
            "'draupnir' has the rights of a superuser or of a predefined role",
        ),
        (
            "GRANT pg_read_server_files TO draupnir; GRANT EXECUTE ON FUNCTION pg_read_file(text) TO draupnir",
            "REVOKE pg_read_server_files FROM draupnir; REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM draupnir",
            "'draupnir' has the rights of a superuser or of a predefined role",
        ),
        (
            "CREATE ROLE step; GRANT pg_read_server_files TO step; GRANT step TO draupnir",
            "DROP ROLE step",
            "has the rights of a superuser or of a predefined role",
        ),
        (
            "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO draupnir",
            "REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM draupnir",
            "may read a file",
        ),
        ("ALTER DATABASE other ALLOW_CONNECTIONS false", "ALTER DATABASE other ALLOW_CONNECTIONS true", None),
        ("ALTER DATABASE other CONNECTION LIMIT 0", "ALTER DATABASE other CONNECTION LIMIT -1", None),
        (
            "REVOKE CONNECT ON DATABASE other FROM PUBLIC, draupnir",
            "GRANT CONNECT ON DATABASE other TO PUBLIC, draupnir",
            "could not sign in to the database 'other' .*SQLSTATE 42501",
        ),
    ],
)
async def test_a_role_that_may_do_too_much_or_too_little_is_reported(
    server: Cluster, authority: Authority, change: str, back: str, says: str | None
) -> None:
    allow(server, RIGHT)
    # An earlier trial has granted this.
    execute(server, "REVOKE draupnir FROM postgres", *change.split(";"))
    try:
        if says is None:
            await probe(server.port, authority)
        else:
            with pytest.raises(ImageFailed, match=says):
                await probe(server.port, authority)
    finally:
        execute(server, *back.split(";"))


@asynccontextmanager
async def instead_of_roles(server: Cluster, query: str) -> AsyncIterator[None]:
    """Provide the data replace the view pg_roles."""
    with psycopg.connect(server.dsn("template1"), autocommit=True) as connection:
        connection.execute("SET allow_system_table_mods = on")
        connection.execute("ALTER VIEW pg_roles RENAME TO true_roles")
        connection.execute(f"CREATE VIEW pg_catalog.pg_roles AS {query}".encode())
        connection.execute("GRANT SELECT ON pg_catalog.pg_roles TO PUBLIC")
    try:
        yield
    finally:
        with psycopg.connect(server.dsn("template1"), autocommit=True) as connection:
            connection.execute("SET allow_system_table_mods = on")
            connection.execute("DROP VIEW pg_catalog.pg_roles")
            connection.execute("ALTER VIEW pg_catalog.true_roles RENAME TO pg_roles")


async def test_a_list_without_end_takes_no_memory(server: Cluster, authority: Authority) -> None:
    allow(server, RIGHT)
    endless = (
        "SELECT 0::oid AS oid, 'draupnir'::name AS rolname, true AS rolcanlogin, false AS rolsuper"
        " FROM generate_series(1, 5000000)"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with instead_of_roles(server, endless):
        await probe(server.port, authority)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


async def test_a_list_that_never_comes_fails_at_the_deadline(server: Cluster, authority: Authority) -> None:
    allow(server, RIGHT)
    never = (
        "SELECT 'draupnir'::name AS rolname, true AS rolcreatedb, true AS rolcanlogin, true AS rolsuper"
        " FROM (SELECT pg_sleep(36000)) AS asleep"
    )
    async with instead_of_roles(server, never):
        with pytest.raises(ImageFailed, match="within 2 s"):
            await probe(server.port, authority, deadline_s=2)
        execute(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'draupnir'")


async def test_a_refusal_that_will_not_change_is_not_tried_again(server: Cluster) -> None:
    allow(server, RIGHT)
    with pytest.raises(ImageFailed, match="could not sign in: the TLS handshake failed"):
        await probe(server.port, certificates.create_authority(), deadline_s=36000)


async def test_a_missing_rule_for_draupnir_fails_at_once(server: Cluster, authority: Authority) -> None:
    allow(server)
    with pytest.raises(ImageFailed, match="could not sign in: SQLSTATE 28000"):
        await probe(server.port, authority, deadline_s=36000)


async def test_an_absent_server_is_reported_at_the_deadline(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ImageFailed, match="within 0 s"):
        await probe(port, authority, deadline_s=0.1)


async def test_a_server_that_comes_up_late_is_waited_for(server: Cluster, authority: Authority) -> None:
    """The server closes every connection at first, like systemd's proxy."""
    allow(server, RIGHT)
    hung_up = 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hung_up
        if hung_up < 3:
            hung_up += 1
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as late:
        await probe(late.sockets[0].getsockname()[1], authority)
    assert hung_up == 3


async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    except OSError:
        pass
    target.close()


@pytest.mark.parametrize(
    "flood",
    [b"E\x7f\xff\xff\xff", b"N" + (60000).to_bytes(4, "big") + b"x" * 59996, b"\x00"],
    ids=["one huge message", "endless notices", "garbage"],
)
async def test_a_server_that_floods_its_client_fails_the_image(authority: Authority, flood: bytes) -> None:
    identity = certificates.issue_server(authority, "db.example.org")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(8)
            writer.write(b"S")
            await writer.start_tls(tls)
            await reader.read(1)
            while not writer.is_closing():
                writer.write(flood)
                await writer.drain()
                await asyncio.sleep(0)
        except (OSError, EOFError):
            pass
        writer.close()

    tls = server_context(identity)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as hostile:
        with pytest.raises(ImageFailed, match="violated the Postgres protocol or sent too much"):
            await probe(hostile.sockets[0].getsockname()[1], authority, deadline_s=36000)


def server_context(identity: certificates.ServerIdentity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as chain:
        chain.write(identity.certificate + identity.key)
        chain.flush()
        context.load_cert_chain(chain.name)
    return context


@asynccontextmanager
async def silence() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Provide a port that accepts and sends nothing, and an event for a connection."""
    come = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        come.set()
        with suppress(OSError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        yield silent.sockets[0].getsockname()[1], come


async def test_a_trial_that_is_cancelled_leaves_no_process(authority: Authority) -> None:
    async with silence() as (port, come):
        trial = asyncio.create_task(probe(port, authority))
        await come.wait()
        assert children()
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        assert not children()


def runs(process: str) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_trial_ends_with_its_daemon(authority: Authority) -> None:
    program = (
        "import asyncio, sys\nfrom draupnir import certificates, probes\n"
        "authority = certificates.create_authority()\n"
        "asyncio.run(probes.Probes()(int(sys.argv[1]), authority, 'postgres'))\n"
    )
    async with silence() as (port, come):
        daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(port))
        await come.wait()
        (child,) = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
        daemon.send_signal(signal.SIGKILL)
        await daemon.wait()
        while runs(child):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_trial_is_not_ended_by_the_signal_that_ends_the_daemon(authority: Authority) -> None:
    async with silence() as (port, come):
        trial = asyncio.create_task(probe(port, authority, deadline_s=2))
        await come.wait()
        for child in children():
            os.kill(child, signal.SIGTERM)
        with pytest.raises(ImageFailed, match="within 2 s"):
            await trial
