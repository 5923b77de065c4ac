"""The bare floor: what btrfs and Postgres cost by themselves, started by hand on the same filesystem."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.system.backups import BINARIES
from tests.system.service import run

DATA = Path("/srv/draupnir")
# The settings that our own instances have, so that the comparison is of what is around Postgres.
SETTINGS = (
    "listen_addresses=", "shared_buffers=128MB", "huge_pages=off", "wal_level=minimal", "max_wal_senders=0", "jit=off",
    "synchronous_commit=off", "dynamic_shared_memory_type=posix",
)  # fmt: skip


def snapshot(source: Path, target: Path) -> None:
    """A writable snapshot that Postgres will accept as its own."""
    run("btrfs", "subvolume", "snapshot", source, target)
    os.chown(target, *_postgres())


def forget(target: Path) -> None:
    """Delete the snapshot."""
    run("btrfs", "subvolume", "delete", target)


@contextmanager
def server(data: Path, *settings: str) -> Iterator[str]:
    """Postgres on the directory, for the block; yields a connection string of its socket."""
    sockets = Path("/run/draupnir-bench")
    sockets.mkdir(exist_ok=True)
    shutil.chown(sockets, "postgres", "postgres")
    (data / "pg_hba.conf").write_text("local all all trust\n")
    (data / "pg_ident.conf").write_text("")
    (data / "postgresql.conf").write_text("")
    options = [part for setting in (*SETTINGS, *settings) for part in ("-c", setting)]
    # The group of published images, as our instances have it.
    command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--groups=draupnir-data"]
    with subprocess.Popen(
        [*command, BINARIES / "postgres", "-D", data, "-k", sockets, *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
    ) as process:  # fmt: skip
        try:
            yield f"host={sockets} dbname=my_db user=draupnir"
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()


def first_answer(connection_string: str, deadline_s: float = 60) -> None:
    """Return when a query is answered; asks again every millisecond until then."""
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            with psycopg.connect(connection_string, connect_timeout=30) as connection:
                connection.execute("SELECT 1")
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)


def create(image: Path, number: int, *, copy: bool = False) -> float:
    """Seconds from nothing to the first answer: snapshot (or a copy by reference), start, query."""
    target = DATA / f"floor-{number}"
    began = time.perf_counter()
    if copy:
        run("cp", "-a", "--reflink=always", image, target)
        os.chown(target, *_postgres())
    else:
        snapshot(image, target)
    with server(target) as connection_string:
        first_answer(connection_string)
        seconds = time.perf_counter() - began
    if copy:
        shutil.rmtree(target)
    else:
        forget(target)
    return seconds


def start(image: Path, number: int) -> float:
    """Seconds from the start of Postgres on a snapshot to the first answer."""
    target = DATA / f"floor-{number}"
    snapshot(image, target)
    began = time.perf_counter()
    with server(target) as connection_string:
        first_answer(connection_string)
        seconds = time.perf_counter() - began
    forget(target)
    return seconds


def create_database(image: Path, times: int) -> list[float]:
    """Seconds of CREATE DATABASE … TEMPLATE in one running server, to the first answer."""
    target = DATA / "floor-template"
    snapshot(image, target)
    series = []
    with server(target) as connection_string:
        first_answer(connection_string)
        with psycopg.connect(connection_string.replace("my_db", "postgres"), autocommit=True) as connection:
            for _ in range(times):
                began = time.perf_counter()
                connection.execute("CREATE DATABASE copy TEMPLATE my_db")
                first_answer(connection_string.replace("my_db", "copy"))
                series.append(time.perf_counter() - began)
                connection.execute("DROP DATABASE copy")
    forget(target)
    return series


def _postgres() -> tuple[int, int]:
    found = pwd.getpwnam("postgres")
    return found.pw_uid, found.pw_gid
