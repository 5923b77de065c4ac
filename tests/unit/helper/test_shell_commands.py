"""psql ignores that a shell command of the script could not run, so the job looks for such commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from draupnir_helper.jobs import scripts


@pytest.mark.parametrize(
    "line", ["\\! ./mask.sh", "  \\!psql -c 'DELETE FROM users'", "\\set salt `openssl rand -hex 16`", "\\! `x`"]
)
def test_a_command_for_a_shell_is_found_with_its_line(tmp_path: Path, line: str) -> None:
    script = tmp_path / "anonymisation_script.sql"
    script.write_text(f"\\c my_db\n{line}\n")
    assert scripts.no_shell(script).startswith("anonymisation_script.sql:2: ")


@pytest.mark.parametrize(
    "line", ["SELECT 'a!b', 5!=4;", "\\echo '`'", "UPDATE users SET name = '!' || id;", "-- \\! id"]
)
def test_other_lines_are_no_shell_commands(tmp_path: Path, line: str) -> None:
    script = tmp_path / "anonymisation_script.sql"
    script.write_text(f"{line}\n")
    assert scripts.no_shell(script) == ""
