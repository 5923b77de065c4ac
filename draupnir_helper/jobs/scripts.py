"""Runs the anonymisation script with psql, and finds failures that psql does not report."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from draupnir_helper.jobs import failures, reports
from draupnir_helper.jobs.clusters import Cluster
from draupnir_helper.jobs.reports import JobError

_SQL = Path(__file__).with_name("sql")
_LEAVING_S = 30.0
_ROLLED_BACK = (
    "a transaction of the script was rolled back, by ROLLBACK or because it was still open at a \\connect; "
    "end it with COMMIT"
)
# These messages of after_script.sql are our own, so they may be published.
_LEFT = (
    "the script leaves a transaction open; end it with COMMIT",
    "the script leaves a prepared transaction; end it with COMMIT PREPARED",
)
_NO_SHELL = (
    "psql tried to start a shell, and the sandbox has none; remove \\!, backticks, \\e, and each program behind "
    "\\copy, \\g, \\o or \\w"
)
_ENDED_EARLY = "psql ended the script before its last line, by \\q or in an open quote; remove what ends it"


def run(cluster: Cluster, databases: Mapping[str, int], script: Path) -> None:
    """Run the operator's script; the image fails if a part of it fails, is skipped or is rolled back."""
    database = "postgres" if "postgres" in databases else "template1"
    before = _rollbacks(cluster)
    word = secrets.token_hex(16)
    copy = _with_end(cluster, script, word)
    finished, has_started_program = cluster.run_script(database, copy, _SQL / "after_script.sql")
    if finished.returncode != 0 and cluster.ran_out_of_room(finished):
        raise JobError("no_room", reports.NO_ROOM, cluster.private(finished.stderr))
    if finished.returncode != 0 and (damage := cluster.damage(finished.stderr)):
        raise damage
    if has_started_program:
        why = f"{_line_of_program(script, finished.stderr)}: {_NO_SHELL}"
    elif finished.returncode != 0:
        left = next((sentence for sentence in _LEFT if sentence in finished.stderr), None)
        why = f"{script.name}: {left}" if left else failures.of_script(cluster.major, script, finished.stderr)
    elif _passed_over(finished.stderr):
        why = failures.of_script(cluster.major, script, _passed_over(finished.stderr))
    elif word not in finished.stderr:
        why = f"{script.name}: {_ENDED_EARLY}"
    else:
        why = ""
    if not why and any(count > before.get(database_id, 0) for database_id, count in _rollbacks(cluster).items()):
        why = f"{script.name}: {_ROLLED_BACK}"
    if why:
        detail = (
            f"The anonymisation script failed, so nothing is published. {why}. Correct the script with "
            "`draupnir-client images update ID --script FILE` or PATCH /images/ID, and finalise again. The upload is "
            "retained."
        )
        raise JobError("script_failed", detail, cluster.private(finished.stderr))


def _with_end(cluster: Cluster, script: Path, word: str) -> Path:
    """Return a copy of the script whose last line sets a word. after_script.sql prints it if psql reached that line.

    A `\\q` ends a file without an error, and an open quote swallows the rest of it.
    """
    copy = cluster.directory / "script" / script.name
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(f"{script.read_text(encoding='utf-8')}\n\\set draupnir_end {word}\n", encoding="utf-8")
    return copy


def _rollbacks(cluster: Cluster) -> dict[str, int]:
    """Wait for all sessions to end, and return how many transactions were rolled back, by oid of the database.

    A `\\c` in the script rolls back an open transaction without an error. Before Postgres 15 the statistics need a
    network, which the sandbox does not have, so the counts are always 0.
    """
    deadline = time.monotonic() + _LEAVING_S
    while True:
        connected, *rows = cluster.run_files("template1", _SQL / "sessions.sql")
        if connected == "0":
            return {database: int(count) for database, count in (row.split("|") for row in rows)}
        if time.monotonic() > deadline:
            detail = "The anonymisation script leaves sessions open, such as those of dblink; close them in the script."
            raise JobError("script_failed", detail)
        time.sleep(0.02)


def _passed_over(errors: str) -> str:
    """Return errors after which psql continues, such as an `\\if` that is neither true nor false."""
    return "\n".join(line for line in errors.splitlines() if re.match(r"psql:[^:]+:\d+: error: ", line))


def _line_of_program(script: Path, errors: str) -> str:
    """Return the script's name, with the line of the program if psql names it or if only one line has a `\\!`.

    psql reports a program that could not start, unless it is behind `\\!` or `\\e`.
    """
    lines = script.read_text(encoding="utf-8").splitlines()
    # A message can quote data that look like such a line.
    reported = re.findall(rf"^psql:{re.escape(script.name)}:(\d{{1,9}}): error: ", errors, re.MULTILINE)
    found = [number for number in map(int, reported[:1]) if 1 <= number <= len(lines)]
    found = found or [number for number, line in enumerate(lines, 1) if "\\!" in line]
    return f"{script.name}:{found[0]}" if len(found) == 1 else script.name
