"""The state that no attack may change: files outside of the data disk, another instance, and doctor's report."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.service import Service, run

PLANTED = Path("/var/lib/draupnir-canary")
OUTSIDE = (
    *("/etc", "/root", "/home", "/opt", "/boot", "/usr/local", "/usr/lib/draupnir", "/usr/lib/systemd/system"),
    *("/usr/lib/python3/dist-packages/draupnir", "/usr/lib/python3/dist-packages/draupnir_helper"),
    *("/usr/bin", "/usr/sbin", "/var/spool", "/var/lib/systemd/linger", str(PLANTED)),
)
# Programs are numerous and large, so only their names, modes, owners and sizes are compared.
NOT_READ = ("/usr/bin", "/usr/sbin")


@contextmanager
def planted() -> Iterator[None]:
    """Provide a world-writable tree beside our data as a target during the block."""
    PLANTED.mkdir()
    PLANTED.chmod(0o777)
    for name in ("postgresql.conf", "authorized_keys", "evil.so"):
        (PLANTED / name).write_text("canary")
        (PLANTED / name).chmod(0o666)
    try:
        yield
    finally:
        run("rm", "-r", PLANTED)


def fingerprint() -> dict[str, str]:
    """Return each outside file and directory → mode, owner, size, and its content or target."""
    return {
        str(path): _fingerprint(path, read=not top.startswith(NOT_READ))
        for top in OUTSIDE
        if Path(top).exists()
        for path in _below(Path(top))
    }


def _below(top: Path) -> Iterator[Path]:
    yield top
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = Path(directory, name)
            # Compiled Python files and the client's certificates do not matter.
            if "__pycache__" not in path.parts and not path.is_relative_to("/root/.cache"):
                yield path


def _fingerprint(path: Path, *, read: bool) -> str:
    found = path.lstat()
    words = [f"{found.st_mode:o}", str(found.st_uid), str(found.st_gid)]
    if stat.S_ISLNK(found.st_mode):
        words.append(str(path.readlink()))
    elif stat.S_ISREG(found.st_mode):
        words.append(str(found.st_size))
        if read:
            words.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return " ".join(words)


def findings() -> set[str]:
    """Return doctor's problems, without the figures, which vary."""
    lines = run("draupnir", "doctor", ok=False).stdout.splitlines()
    return {line.partition(":")[0] for line in lines if not line.startswith("✓")}


class Bystanders:
    """A snapshot of the machine outside, another instance and doctor's report."""

    def __init__(self, service: Service, neighbour: int) -> None:
        self._service, self._neighbour = service, neighbour
        self._environment = {**service.environment(neighbour), "PGDATABASE": "my_db"}
        self._files, self._findings = fingerprint(), findings()

    def check(self) -> None:
        """Fail the test unless all of it is unchanged."""
        now = fingerprint()
        changed = {path for path in self._files.keys() | now.keys() if self._files.get(path) != now.get(path)}
        assert changed == set(), changed
        assert run("psql", "-XAtqc", "SELECT count(*) FROM users", env=self._environment).stdout == "5000\n"
        assert (reported := findings()) == self._findings, reported
