"""The lower bound: btrfs and Postgres alone, started by hand on the same filesystem."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.system.backups import BINARIES
from tests.system.service import run

DATA = Path("/srv/draupnir")
# The settings of our instances, so that only the parts around Postgres differ.
SETTINGS = (
    "listen_addresses=", "shared_buffers=128MB", "huge_pages=off", "wal_level=minimal", "max_wal_senders=0", "jit=off",
    "synchronous_commit=off", "dynamic_shared_memory_type=posix",
)  # fmt: skip
# The group of published images, as our instances have it.
_AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--groups=draupnir-data")


def image(image_id: int) -> Path:
    """Return the published snapshot of an image."""
    return DATA / "image_snapshots" / str(image_id)


def snapshot(source: Path, target: Path) -> None:
    """Return a writable snapshot that Postgres will accept as its own."""
    run("btrfs", "subvolume", "snapshot", source, target)
    os.chown(target, *postgres())


def forget(target: Path) -> None:
    """Delete the snapshot."""
    run("btrfs", "subvolume", "delete", target)


def sockets() -> Path:
    """Return the directory of a bare server's socket."""
    found = Path("/run/draupnir-bench")
    found.mkdir(exist_ok=True)
    shutil.chown(found, "postgres", "postgres")
    return found


@contextmanager
def server(data: Path, *settings: str) -> Iterator[str]:
    """Postgres on the directory, for the block; yields a connection string of its socket."""
    _configure(data)
    options = [part for setting in (*SETTINGS, *settings) for part in ("-c", setting)]
    with subprocess.Popen(
        [*_AS_POSTGRES, BINARIES / "postgres", "-D", data, "-k", sockets(), *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
    ) as process:  # fmt: skip
        try:
            yield f"host={sockets()} dbname=my_db user=draupnir"
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()


def unlock(data: Path) -> None:
    """Let the superuser of a snapshot of an image log in again."""
    _configure(data)
    statement = "UPDATE pg_authid SET rolcanlogin = true WHERE oid = 10;\n"
    run(*_AS_POSTGRES, BINARIES / "postgres", "--single", "-D", data, "template1", input=statement, cwd="/")


def _configure(data: Path) -> None:
    (data / "pg_hba.conf").write_text("local all all trust\n")
    (data / "pg_ident.conf").write_text("")
    (data / "postgresql.conf").write_text("")


def stop(data: Path) -> None:
    """Stop the bare server on the directory cleanly, so that its next start needs no recovery."""
    run("runuser", "-u", "postgres", "--", BINARIES / "pg_ctl", "-D", data, "-m", "fast", "-w", "stop", cwd="/")


def as_superuser(connection_string: str, database: str = "my_db") -> str:
    """Return the connection string of a bare server, for its superuser."""
    return connection_string.replace("user=draupnir", "user=postgres").replace("dbname=my_db", f"dbname={database}")


def processes(data: Path) -> list[int]:
    """Return the processes of the bare server on the directory."""
    postmaster = int((data / "postmaster.pid").read_text().splitlines()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [postmaster, *map(int, children)]


def first_answer(connection_string: str, deadline_s: float = 60) -> None:
    """Wait until a query is answered, with a try every millisecond."""
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
        os.chown(target, *postgres())
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


def start(image: Path, number: int, *, ready: Callable[[], None] | None = None) -> float:
    """Seconds from the start of Postgres on a snapshot to the first answer; `ready` is called before, and not timed."""
    target = DATA / f"floor-{number}"
    snapshot(image, target)
    if ready is not None:
        ready()
    began = time.perf_counter()
    with server(target) as connection_string:
        first_answer(connection_string)
        seconds = time.perf_counter() - began
    forget(target)
    return seconds


def postgres() -> tuple[int, int]:
    """uid and gid of Debian's user for Postgres."""
    found = pwd.getpwnam("postgres")
    return found.pw_uid, found.pw_gid
