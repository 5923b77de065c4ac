"""The sign-in probes against a real Postgres with TLS, set up as instances are, then wrong in one way at a time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from draupnir import certificates, probes
from draupnir.errors import ImageFailed
from draupnir.models import Authority
from tests.postgres import Cluster, give_away, throw_away

pytestmark = pytest.mark.anyio

RIGHT = "hostssl all draupnir all cert map=draupnir"


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
        write(cluster.data / "pg_ident.conf", "draupnir draupnir draupnir\n")
        with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
            connection.execute("CREATE ROLE draupnir LOGIN CREATEDB")
            for name, value in {"ssl": "on", "ssl_ca_file": "ca.crt"}.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        yield cluster


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    give_away(path)


def allow(server: Cluster, *lines: str) -> None:
    write(server.data / "pg_hba.conf", "\n".join(["local all postgres trust", *lines, ""]))
    before = loaded_at(server)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("SELECT pg_reload_conf()")
    # A new backend knows what the postmaster knows.
    while loaded_at(server) == before:
        pass


def loaded_at(server: Cluster) -> object:
    with psycopg.connect(server.dsn()) as connection:
        return connection.execute("SELECT pg_conf_load_time()").fetchone()


async def test_a_server_as_it_has_to_be_passes(server: Cluster, authority: Authority) -> None:
    allow(server, RIGHT)
    await probes.run(server.port, certificates.issue_client(authority))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([RIGHT, "host all draupnir all trust"], "without TLS was let in"),
        (["hostssl all draupnir all trust"], "without a client certificate was let in"),
        ([RIGHT, "hostssl all postgres all trust"], "role postgres .* was let in"),
    ],
)
async def test_a_door_that_stands_open_is_named(
    server: Cluster, authority: Authority, lines: list[str], says: str
) -> None:
    allow(server, *lines)
    with pytest.raises(ImageFailed, match=says) as raised:
        await probes.run(server.port, certificates.issue_client(authority))
    assert raised.value.code == "trial_failed"


@pytest.mark.parametrize(
    ("attribute", "back", "says"), [("SUPERUSER", "NOSUPERUSER", "superuser"), ("NOCREATEDB", "CREATEDB", "databases")]
)
async def test_a_role_that_is_not_as_it_has_to_be_is_told(
    server: Cluster, authority: Authority, attribute: str, back: str, says: str
) -> None:
    allow(server, RIGHT)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"ALTER ROLE draupnir {attribute}".encode())
    with pytest.raises(ImageFailed, match=says):
        await probes.run(server.port, certificates.issue_client(authority))
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"ALTER ROLE draupnir {back}".encode())


async def test_a_server_of_another_authority_is_not_signed_in_to(server: Cluster) -> None:
    allow(server, RIGHT)
    with pytest.raises(ImageFailed, match="could not sign in within 0 s"):
        await probes.run(server.port, certificates.issue_client(certificates.create_authority()), deadline_s=0.1)


async def test_nobody_there_is_told_at_the_deadline(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ImageFailed, match="could not sign in"):
        await probes.run(port, certificates.issue_client(authority), deadline_s=0.1)
