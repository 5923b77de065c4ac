"""The public part of an error names the line and the condition, and quotes no data."""

from __future__ import annotations

from pathlib import Path

import pytest

from draupnir_helper import postgres
from draupnir_helper.jobs import failures

MAJOR = postgres.installed_majors()[-1]
ROW = "Failing row contains (7, raw@corp.example)"
NAME = "anonymisation_script.sql"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_text("SELECT 1;\nSELECT 2;\nSELECT 3;\n")
    return path


ERRORS = {
    f"psql:{NAME}:3: ERROR:  23502: null value\nDETAIL:  {ROW}.\n": (f"{NAME}:3: SQLSTATE 23502 (not_null_violation)"),
    f"psql:{NAME}:1: NOTICE:  00000: {ROW}\npsql:{NAME}:2: ERROR:  22012: division by zero\n": (
        f"{NAME}:2: SQLSTATE 22012 (division_by_zero)"
    ),
    f"psql:{NAME}:2: FATAL:  57P01: terminating connection {ROW}": f"{NAME}:2: SQLSTATE 57P01 (admin_shutdown)",
    f"psql:{NAME}:2: error: invalid command \\{ROW}": f"{NAME}:2: psql could not execute this line",
    # A script may set its own VERBOSITY.
    f"psql:{NAME}:2: ERROR:  {ROW}": f"{NAME}:2: psql could not execute this line",
    # RAISE accepts any five characters and any message, which could come from a row.
    f"psql:{NAME}:2: ERROR:  RAW7X: {ROW}": f"{NAME}:2: a SQLSTATE that Postgres does not define",
    f"psql:{NAME}:4711: ERROR:  22012: {ROW}": f"{NAME}: psql ended without naming a line",
    f"psql:{ROW}:2: ERROR:  22012: {ROW}": f"{NAME}: psql ended without naming a line",
    ROW: f"{NAME}: psql ended without naming a line",
}


@pytest.mark.parametrize("stderr", ERRORS)
def test_a_script_s_failure_is_its_line_and_its_condition(script: Path, stderr: str) -> None:
    assert failures.of_script(MAJOR, script, stderr) == ERRORS[stderr]


def test_a_statement_of_our_own_and_the_server_s_log_are_known_by_their_sqlstate() -> None:
    stderr = f"psql:/usr/lib/x.sql:3: ERROR:  42501: permission denied {ROW}"
    assert failures.of_statement(MAJOR, stderr) == "SQLSTATE 42501 (insufficient_privilege)"
    log = f"22012 ERROR:  {ROW}\n58P01 FATAL:  {ROW}\n00000 LOG:  database system is shut down"
    assert failures.of_server(MAJOR, log) == "SQLSTATE 58P01 (undefined_file)"
    assert ROW not in failures.of_statement(MAJOR, ROW) + failures.of_server(MAJOR, ROW)
