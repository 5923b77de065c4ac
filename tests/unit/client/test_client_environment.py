"""Laws of the export line: a real shell gets exactly the values, and nothing in them is ever run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from draupnir_client import environment
from draupnir_client.credentials import CredentialFiles
from draupnir_client.errors import BadAnswer, ConfigError
from draupnir_client.models import read_instance

from .conftest import instance

FILES = CredentialFiles(Path("/h o/ca.crt"), Path("/h o/client.crt"), Path("/h o/client.key"))


def variables(database: str = "postgres", hostname: str = "my-draupnir.tld") -> dict[str, str]:
    return environment.variables(read_instance(instance(4, hostname=hostname)), FILES, database)


def evaluate(line: str, shell: str, form: str, folder: Path) -> dict[str, str]:
    """Do `eval $(…)` in a shell, in a folder full of names that a glob would find, and return the PG* it has then."""
    program = f"eval {form}; env -0"
    out = subprocess.run(
        [shell, "-c", program], env={"LINE": line, "PATH": "/usr/bin:/bin"}, cwd=folder, check=True, capture_output=True
    )
    assert out.stderr == b""
    pairs = (item.partition("=")[::2] for item in out.stdout.decode().split("\0") if item.startswith("PG"))
    return dict(pairs)


def test_the_line_is_the_one_of_the_brief() -> None:
    assert environment.export_line(variables()) == (
        "export PGHOST=my-draupnir.tld PGPORT=6543 PGUSER=draupnir PGPASSWORD='' PGDATABASE=postgres"
        " PGSSLMODE=verify-full PGSSLROOTCERT='/h o/ca.crt' PGSSLCERT='/h o/client.crt' PGSSLKEY='/h o/client.key'"
    )


HOSTILE = [
    "my db",
    " leading and trailing ",
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "a'b\"c\\d",
    "$HOME ~ !! # &",
    "x;touch${IFS}pwned",
    "-n",
    "datenbank_für_öl",
    "{a,b}",
]


@pytest.mark.parametrize("form", ['$(printf "%s\\n" "$LINE")', '"$(printf "%s\\n" "$LINE")"'], ids=["bare", "quoted"])
@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("database", HOSTILE)
def test_eval_gives_exactly_the_values_and_runs_nothing(database: str, shell: str, form: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    wanted = variables(database)
    assert evaluate(environment.export_line(wanted), shell, form, folder) == wanted
    assert list(folder.iterdir()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(database=st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_database_name_comes_through_whole_or_is_refused(database: str, tmp_path: Path) -> None:
    wanted = variables(database)
    try:
        line = environment.export_line(wanted)
    except ConfigError:
        return
    assert evaluate(line, "bash", '$(printf "%s\\n" "$LINE")', tmp_path) == wanted


@pytest.mark.parametrize("database", ["a  b", "a * b", "what?", "[x]", "line\nbreak", "tab\tbed", "\x1b[31m", "nul\0"])
def test_what_an_unquoted_eval_would_change_is_refused(database: str) -> None:
    with pytest.raises(ConfigError, match="PGDATABASE"):
        environment.export_line(variables(database))


@pytest.mark.parametrize(
    "hostname",
    [
        "",
        "/tmp",
        "@abstract",
        "a,b",
        "a b",
        "$(touch pwned)",
        "a;b",
        "x\n",
        "-h",
        "a'b",
        "host=evil",
        "\x1b[2J",
        "é.tld",
        "a" * 254,
    ],
)
def test_an_invalid_host_name_is_refused(hostname: str) -> None:
    with pytest.raises(BadAnswer, match="not a host name"):
        variables(hostname=hostname)


@pytest.mark.parametrize("hostname", ["my-draupnir.tld", "10.0.0.1", "::1", "fe80::1", "LOCALHOST", "a_b"])
def test_host_names_and_addresses_are_taken(hostname: str) -> None:
    assert variables(hostname=hostname)["PGHOST"] == hostname
