"""A script for which psql starts a program fails, because the sandbox has no shell and psql may skip the program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from draupnir_helper.jobs import clusters, scripts
from draupnir_helper.jobs.reports import JobError
from tests.postgres import Cluster, throw_away

SHELL = {
    "alone": "\\! true",
    "behind a statement": "SELECT 1; \\! true",
    "behind a statement of two lines": "SELECT\n1; \\! true",
    "between statements": "SELECT 1 \\! true\n;",
    "without a command": "\\!",
    "backticks": "SELECT 1; \\set salt `echo x`",
    "backticks in a word": "\\echo a`echo x`",
    "backticks in a condition": "\\if `echo 1`\n\\endif",
    "output": "SELECT 1; \\o |cat\nSELECT 2;\n\\o",
    "output of a query": "SELECT 1 \\g |cat",
    "output of a query with options": "SELECT 1 \\gx (format=csv) |cat",
    "the query buffer": "SELECT 1 \\w |cat",
    "\\copy from a program": "CREATE TEMP TABLE t (a text);\n\\copy t from program 'echo x'",
    "\\copy to a program": "\\copy (SELECT 1) to program 'cat'",
    "an editor": "\\setenv EDITOR true\nSELECT 1 \\e",
    "an included file": "\\t on\n\\o included.sql\nSELECT '\\! true';\n\\o\n\\i included.sql",
}
HARMLESS = {
    "a literal": "SELECT '; \\! true', E'\\\\! `true`', U&'`x`', 5!=4;",
    "a literal of two lines": "SELECT '\n\\! true\n';",
    "dollar quotes": "DO $$ BEGIN\n/* `x`\n\\! true */ END $$;",
    "a tag": "SELECT $a$ $$ \\! true $a$;",
    "an identifier": 'SELECT 1 AS "\\! `x`";',
    "comments": "-- \\! true\n/* \\! /* `x` */\n\\! true */ SELECT 1; -- \\! x",
    "an argument": "\\echo '`true`' '\\! true'",
    "a branch that is not taken": "\\if false\n\\! true\n\\set x `true`\n\\endif",
    "data of COPY": "CREATE TEMP TABLE t (a text);\nCOPY t FROM stdin;\n\\\\! true `x`\n\\.",
    "data of \\copy": "CREATE TEMP TABLE t (a text);\n\\copy t from stdin\n\\\\! true `x`\n\\.",
    "a pager": "\\setenv PAGER cat\n\\pset pager always\nSELECT generate_series(1, 1000);",
    "an output file": "\\o output\nSELECT 1 \\g other\n\\o\n\\i other_file\n",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Start a cluster without sessions of other tests, because the job waits for the end of all sessions."""
    with throw_away() as cluster:
        yield cluster


def ran(job: clusters.Cluster, directory: Path, text: str) -> str:
    """Run the script, and return its failure, or nothing."""
    job.script_settings = {}
    script = directory / "anonymisation_script.sql"
    script.write_text(f"SELECT 'first line';\n{text}\n")
    try:
        scripts.run(job, {"postgres": 5}, script)
    except JobError as error:
        return f"{error.code}: {error}"
    return ""


@pytest.mark.parametrize("text", SHELL.values(), ids=SHELL)
def test_a_command_for_a_shell_fails_the_script(job: clusters.Cluster, tmp_path: Path, text: str) -> None:
    """Here the command succeeds, so psql reports nothing."""
    assert "psql tried to start a shell" in ran(job, tmp_path, text)


def test_the_failure_names_the_line_of_the_only_command(job: clusters.Cluster, tmp_path: Path) -> None:
    assert " anonymisation_script.sql:3: " in ran(job, tmp_path, "SELECT 1;\nSELECT 2; \\! true")


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_text_that_only_looks_like_a_command_for_a_shell_is_accepted(
    job: clusters.Cluster, tmp_path: Path, text: str
) -> None:
    (job.directory / "script").mkdir(exist_ok=True)
    (job.directory / "script" / "other_file").write_text("SELECT 1;\n")
    assert ran(job, tmp_path, text) == ""
