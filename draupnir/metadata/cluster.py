"""Creates the private metadata cluster once, a small separate Postgres, and returns the command that starts it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

DATA = Path("/var/lib/draupnir/metadata/cluster")
SOCKET_DIRECTORY = Path("/run/draupnir-metadata")
POSTGRES_ROOT = Path("/usr/lib/postgresql")
DATABASE = "draupnir"

# These settings use little memory, for a few small tables and one client.
PARAMETERS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "30",
    "shared_buffers": "16MB",
    "huge_pages": "off",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "min_wal_size": "32MB",
    "max_wal_size": "128MB",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "",
}


class PreparationFailed(Exception):
    """The cluster cannot start. The text says why and what to do."""


def prepare(data: Path = DATA, root: Path = POSTGRES_ROOT) -> Path:
    """Create the cluster if it is missing, and return the `bin` directory of its Postgres. Raises PreparationFailed."""
    majors = installed_majors(root)
    if (data / "PG_VERSION").exists():
        major = int((data / "PG_VERSION").read_text(encoding="utf-8"))
        if major not in majors:
            raise PreparationFailed(
                f"The metadata in {data} are of Postgres {major}, whose server is not installed;"
                f" run `apt install postgresql-{major}` and `systemctl restart draupnir-metadata`."
            )
        return majors[major]
    if not majors:
        raise PreparationFailed(f"No Postgres server found under {root}; run `apt install postgresql`.")
    if data.exists() and any(data.iterdir()):
        raise PreparationFailed(f"{data} is neither empty nor a Postgres cluster; move its content elsewhere.")
    binaries = majors[max(majors)]
    _create(data, binaries)
    return binaries


def installed_majors(root: Path = POSTGRES_ROOT) -> dict[int, Path]:
    """Return the `bin` directory of each server installed by Debian's packages, by major."""
    return {
        int(found.parent.parent.name): found.parent
        for found in root.glob("*/bin/initdb")
        if found.parent.parent.name.isdecimal()
    }


def command(binaries: Path, data: Path, socket_directory: Path) -> list[str]:
    """Return the argv of the cluster's Postgres; Debian's build notifies systemd when it is ready."""
    parameters = PARAMETERS | {"unix_socket_directories": str(socket_directory)}
    options = [option for name, value in parameters.items() for option in ("-c", f"{name}={value}")]
    return [str(binaries / "postgres"), "-D", str(data), *options]


def _create(data: Path, binaries: Path) -> None:
    """Create the cluster in a temporary directory, then rename it, so that a crash leaves no partial cluster."""
    draft = data.with_name(f"{data.name}.new")
    if draft.exists():
        shutil.rmtree(draft)
    # Only draupnir and root can access the socket, because its directory has mode 0700. So it needs no password.
    authentication = ["--auth-local=trust", "--auth-host=reject", f"--username={DATABASE}"]
    encoding = ["--locale=C.UTF-8", "--encoding=UTF8", "--data-checksums"]
    _run([str(binaries / "initdb"), "--pgdata", str(draft), *authentication, *encoding])
    _run(
        [str(binaries / "postgres"), "--single", "-D", str(draft), "-c", "exit_on_error=on", "postgres"],
        text=f"CREATE DATABASE {DATABASE};\n",
    )
    draft.rename(data)
    parent = os.open(data.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _run(argv: list[str], text: str = "") -> None:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PreparationFailed(
            f"{argv[0]} could not prepare the metadata cluster (exit code {done.returncode}): {done.stderr.strip()}"
        )
