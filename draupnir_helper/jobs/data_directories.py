"""Reads the Postgres major and pg_control of a data directory."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from draupnir_helper import postgres
from draupnir_helper.jobs.reports import JobError

_VERSION_CHARS = 64  # the uploader decides how long the file is


def read_major(directory: Path) -> int:
    """Return the Postgres major of the data directory. Raises postgres_missing if its server is not installed."""
    with (directory / "PG_VERSION").open(encoding="ascii", errors="replace") as file:
        text = file.read(_VERSION_CHARS).strip()[:20]
    if not re.fullmatch(r"[1-9][0-9]", text):
        version = f"Postgres {text}" if re.fullmatch(r"[0-9]\.[0-9]", text) else "an unknown version of Postgres"
        detail = (
            f"The data directory is of {version}, and Draupnir supports Postgres 12 and newer. Upgrade a copy of the "
            "server with pg_upgrade, and upload a backup of it to a new image."
        )
        raise JobError("postgres_missing", detail)
    major = int(text)
    if major not in postgres.installed_majors():
        detail = (
            f"The data directory is of Postgres {major}, which is not installed on the server. Run `apt install "
            f"postgresql-{major}` there and finalise again. Debian packages of other majors are at apt.postgresql.org."
        )
        raise JobError("postgres_missing", detail)
    return major


def control_data(major: int) -> dict[str, str]:
    """Return the output of pg_controldata for the data directory, label → value. Raises damaged_control_file."""
    command = [postgres.binary(major, "pg_controldata"), "-D", postgres.PGDATA]
    finished = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, env={"LC_ALL": "C"}
    )
    # On a wrong checksum pg_controldata only warns; older majors print the warning to stdout.
    if finished.returncode != 0 or "CRC" in finished.stdout.partition("\n")[0] + finished.stderr:
        detail = "global/pg_control of the data directory is damaged; upload another backup to a new image."
        raise JobError("recovery_failed", detail, finished.stderr)
    pairs = (line.partition(":") for line in finished.stdout.splitlines())
    return {label.strip(): value.strip() for label, _, value in pairs}
