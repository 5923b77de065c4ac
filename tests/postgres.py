"""A temporary Postgres for tests, from Debian's packages, run as an unprivileged user, and removed afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

ROOT = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its socket directory, its TCP port on 127.0.0.1 and its data directory."""

    directory: Path
    port: int

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def dsn(self, database: str = "postgres") -> str:
        return f"host={self.directory} port={self.port} dbname={database} user=postgres"


def binaries() -> Path:
    """Return the `bin` of the newest server, or of POSTGRES_MAJOR; fail if none is installed."""
    major = os.environ.get("POSTGRES_MAJOR") or "*"
    found = sorted(ROOT.glob(f"{major}/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    if not found:
        raise FileNotFoundError(f"no initdb under {ROOT}; the tests need a Postgres server: apt install postgresql")
    return found[-1].parent


def unprivileged() -> dict[str, int]:
    """Return keyword arguments for subprocess that drop root, because Postgres refuses root."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


def give_away(path: Path) -> None:
    """Change the owner of a path to the user of Postgres."""
    if who := unprivileged():
        os.chown(path, who["user"], who["group"])


@contextmanager
def throw_away(locale: str = "C.UTF-8", encoding: str | None = None) -> Iterator[Cluster]:
    """Provide a cluster without fsync, on a socket in a temporary directory; stop and remove it at the end.

    It also ends when the test run is killed, by a signal at the death of its parent.
    """
    directory = Path(tempfile.mkdtemp(prefix="draupnir-test-"))
    give_away(directory)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    cluster = Cluster(directory, port)
    who = unprivileged()
    drop = [f"--reuid={who['user']}", f"--regid={who['group']}", "--clear-groups"] if who else []
    initdb: list[str | Path] = [
        binaries() / "initdb",
        "-D",
        cluster.data,
        "-A",
        "trust",
        "-U",
        "postgres",
        "-N",
        f"--locale={locale}",
        *([f"--encoding={encoding}"] if encoding else []),
    ]
    made = subprocess.run(["setpriv", *drop, *initdb], check=False, capture_output=True, text=True, cwd=directory)
    if made.returncode:
        raise RuntimeError(made.stderr)
    parameters = {
        # Without IPv6, Postgres only uses the other address.
        "listen_addresses": "127.0.0.1,::1",
        "port": port,
        "unix_socket_directories": directory,
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "shared_buffers": "16MB",
        "autovacuum": "off",
        "max_connections": 60,
        "jit": "off",
    }
    options: list[str | Path] = [option for name, value in parameters.items() for option in ("-c", f"{name}={value}")]
    postgres: list[str | Path] = [
        "setpriv",
        *drop,
        "--pdeathsig=QUIT",
        binaries() / "postgres",
        "-D",
        cluster.data,
        *options,
    ]
    with (directory / "log").open("w") as log:
        server = subprocess.Popen(postgres, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory)
    try:
        while not _answers(cluster):
            if server.poll() is not None:
                raise RuntimeError((directory / "log").read_text())
        yield cluster
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait()
        shutil.rmtree(directory)


def _answers(cluster: Cluster) -> bool:
    try:
        psycopg.connect(cluster.dsn()).close()
    except psycopg.OperationalError:
        time.sleep(0.02)
        return False
    return True
