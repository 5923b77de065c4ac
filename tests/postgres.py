"""A throw-away Postgres for tests: found where Debian puts it, run as an unprivileged user, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    """The newest server's `bin`; a machine without one cannot run these tests, and says so by failing."""
    found = sorted(ROOT.glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    if not found:
        raise FileNotFoundError(f"no initdb under {ROOT}; the tests need a Postgres server: apt install postgresql")
    return found[-1].parent


def unprivileged() -> dict[str, int]:
    """Keyword arguments for subprocess that drop root, which Postgres refuses to run as."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


def give_away(path: Path) -> None:
    """Hand a path to the user Postgres runs as."""
    if who := unprivileged():
        os.chown(path, who["user"], who["group"])


@contextmanager
def throw_away() -> Iterator[Cluster]:
    """A cluster without fsync on a socket in a temporary directory, stopped and removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="draupnir-test-"))
    give_away(directory)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    cluster = Cluster(directory, port)
    who = unprivileged()

    def run(*argv: str | Path, check: bool = True) -> None:
        # Not a pipe: the server would keep it open.
        with (directory / "output").open("w+") as output:
            done = subprocess.run(
                argv,
                check=False,
                stdout=output,
                stderr=output,
                cwd=directory,
                user=who.get("user"),
                group=who.get("group"),
            )
            if check and done.returncode:
                raise RuntimeError((directory / "output").read_text())

    run(binaries() / "initdb", "-D", cluster.data, "-A", "trust", "-U", "postgres", "-N", "--locale=C.UTF-8")
    options = (
        f"-c listen_addresses=127.0.0.1 -p {port} -k {directory} -c fsync=off -c full_page_writes=off"
        " -c max_connections=60 -c jit=off"
    )
    control: list[str | Path] = [binaries() / "pg_ctl", "-D", cluster.data, "-l", directory / "log", "-w"]
    try:
        run(*control, "-o", options, "start")
        yield cluster
    finally:
        run(*control, "-m", "immediate", "stop", check=False)
        shutil.rmtree(directory)
