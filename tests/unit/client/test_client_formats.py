"""Laws of the formats of `env`: the parser of each gets exactly the values, and never executes a part of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.pq import Conninfo

from draupnir_client import formats
from draupnir_client.credentials import files_in
from draupnir_client.environment import Connection, variables
from draupnir_client.errors import ConfigError

PLAIN = "/h o"
# A string with the special characters of all formats, and commands that a shell would run.
EVERYTHING = "a'\"$(touch pwned)`touch pwned`\\n\n=#%&+;:@/?[x]{}*  é"
# Possible names of roles, databases and homes, which cannot contain NUL.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
FOLDERS = st.text(st.characters(codec="utf-8", exclude_characters="\0:"), max_size=40)
MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)


def reached(
    database: str = "my_db", role: str = "draupnir", folder: str = PLAIN, host: str = "my-draupnir.tld"
) -> Connection:
    return Connection(4, host, "6543", role, database, files_in(Path("/", folder)))


def evaluate(line: str, shell: str, form: str, folder: Path) -> dict[str, str]:
    """Run `eval $(…)` in a shell, in a folder with names that globs would match, and return its PG* variables."""
    return _run_shell(shell, f"eval {form}; env -0", folder, {"LINE": line})


def _run_shell(shell: str, program: str, folder: Path, environment: dict[str, str]) -> dict[str, str]:
    out = subprocess.run(
        [shell, "-c", program],
        env={"PATH": "/usr/bin:/bin", **environment},
        cwd=folder,
        check=True,
        capture_output=True,
    )
    assert out.stderr == b""
    pairs = (item.partition("=")[::2] for item in out.stdout.decode().split("\0"))
    return {name: value for name, value in pairs if name.startswith(("PG", "DATABASE_URL"))}


# The result of each parser: host, port, role, database and files.


def by_libpq(conninfo: str) -> dict[str, str]:
    """Parse a URL with libpq."""
    return {option.keyword.decode(): option.val.decode() for option in Conninfo.parse(conninfo.encode()) if option.val}


def by_libpq_from_file(text: str, folder: Path, name: str) -> dict[str, str]:
    """Parse a service file with libpq, which reads the name from the environment."""
    path = folder / "pg_service.conf"
    path.write_bytes(b"# first\n[draupnir-41]\nhost=wrong\n" + os.fsencode(text) + b"\n[draupnir]\nhost=wrong\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGSERVICEFILE", str(path))
        patch.setenv("PGSERVICE", name)
        found = Conninfo.get_defaults()
    return {option.keyword.decode(): option.val.decode() for option in found if option.val}


def by_pgjdbc(text: str) -> dict[str, str]:
    """Parse like Driver.parseURL: split at the first ?, the first / and every &, then java.net.URLDecoder."""
    server, _, query = text.removeprefix("jdbc:postgresql://").partition("?")
    authority, _, database = server.partition("/")
    host, _, port = authority.rpartition(":")
    pairs = (pair.partition("=")[::2] for pair in query.split("&"))
    return {"host": host, "port": port, "dbname": unquote_plus(database)} | {k: unquote_plus(v) for k, v in pairs}


def options(place: Connection, key: Path | None = None) -> dict[str, str]:
    """Return the expected result of libpq and pgjdbc."""
    return {
        "host": place.host,
        "port": place.port,
        "user": place.role,
        "dbname": place.database,
        "sslmode": "verify-full",
        "sslrootcert": str(place.files.ca_certificate),
        "sslcert": str(place.files.client_certificate),
        "sslkey": str(key or place.files.client_key),
    }


def assert_has(found: dict[str, str], wanted: dict[str, str]) -> None:
    assert {name: found.get(name) for name in wanted} == wanted


# shell


def test_the_line_is_the_one_of_the_brief() -> None:
    assert formats.shell(reached("postgres")) == (
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
    "'\"$(x)\\n=#%",
]


@pytest.mark.parametrize("form", ['$(printf "%s\\n" "$LINE")', '"$(printf "%s\\n" "$LINE")"'], ids=["bare", "quoted"])
@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("name", HOSTILE)
def test_eval_gives_exactly_the_values_and_runs_nothing(name: str, shell: str, form: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    place = reached(name, name, name)
    assert evaluate(formats.shell(place), shell, form, folder) == variables(place)
    assert list(folder.iterdir()) == []


@MANY
@given(database=NAMES, role=NAMES, folder=FOLDERS)
def test_any_name_comes_through_whole_or_is_refused(database: str, role: str, folder: str, tmp_path: Path) -> None:
    place = reached(database, role, folder)
    try:
        line = formats.shell(place)
    except ConfigError:
        return
    assert evaluate(line, "bash", '$(printf "%s\\n" "$LINE")', tmp_path) == variables(place)


@pytest.mark.parametrize("database", ["a  b", "a * b", "what?", "[x]", "line\nbreak", "tab\tbed", "\x1b[31m", "nul\0"])
def test_values_that_an_unquoted_eval_would_change_are_refused(database: str) -> None:
    with pytest.raises(ConfigError, match="PGDATABASE"):
        formats.shell(reached(database))


# url and jdbc, which carry every name


def test_a_plain_url_is_one_that_people_know() -> None:
    assert formats.url(reached(folder="/c")) == (
        "postgresql://draupnir@my-draupnir.tld:6543/my_db?sslmode=verify-full&sslrootcert=/c/ca.crt"
        "&sslcert=/c/client.crt&sslkey=/c/client.key"
    )
    assert formats.jdbc(reached(folder="/c")) == (
        "jdbc:postgresql://my-draupnir.tld:6543/my_db?user=draupnir&sslmode=verify-full&sslrootcert=/c/ca.crt"
        "&sslcert=/c/client.crt&sslkey=/c/client.pk8"
    )


@pytest.mark.parametrize("name", [EVERYTHING, *HOSTILE, "?", "/", "..", "%2F", "a b+c"])
@pytest.mark.parametrize("host", ["my-draupnir.tld", "10.0.0.1"])
def test_urls_express_every_name(name: str, host: str) -> None:
    place = reached(name, name, name.replace(":", ""), host)
    assert_has(by_libpq(formats.url(place)), options(place))
    assert_has(by_pgjdbc(formats.jdbc(place)), options(place, place.files.client_key_der))


@MANY
@given(database=NAMES, role=NAMES, folder=FOLDERS)
def test_urls_express_any_name(database: str, role: str, folder: str) -> None:
    place = reached(database, role, folder)
    assert_has(by_libpq(formats.url(place)), options(place))
    assert_has(by_pgjdbc(formats.jdbc(place)), options(place, place.files.client_key_der))


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    place = reached(host="2001:db8::1")
    assert_has(by_libpq(formats.url(place)), options(place))
    assert formats.jdbc(place).startswith("jdbc:postgresql://[2001:db8::1]:6543/")


def test_only_urls_express_bytes_that_are_not_text() -> None:
    place = reached("\udce9")
    assert "/%E9?" in formats.url(place)
    for form in (formats.shell, formats.dotenv, formats.service):
        with pytest.raises(ConfigError, match="control characters"):
            form(place)


# service


@pytest.mark.parametrize(
    "name", ["'\"$(x)\\n=#%", " leading", "# comment", "a  b*?[x]", "ldap://x", "datenbank_für_öl"]
)
def test_libpq_reads_its_service(name: str, tmp_path: Path) -> None:
    place = reached(name, folder=name.replace(":", ""))
    assert_has(by_libpq_from_file(formats.service(place), tmp_path, "draupnir-4"), options(place))


@MANY
@given(database=NAMES, role=NAMES, folder=FOLDERS)
def test_libpq_reads_any_service_whole_or_it_is_refused(database: str, role: str, folder: str, tmp_path: Path) -> None:
    place = reached(database, role, folder)
    try:
        text = formats.service(place)
    except ConfigError:
        return
    assert_has(by_libpq_from_file(text, tmp_path, f"draupnir-4-{role}"), options(place))


@pytest.mark.parametrize("database", ["line\nbreak", "trailing ", "x" * 1015, "ö" * 508])
def test_values_that_libpq_cannot_read_from_a_service_file_are_refused(database: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="service cannot express dbname"):
        formats.service(reached(database))
    longest = reached("x" * 1014)
    assert_has(by_libpq_from_file(formats.service(longest), tmp_path, "draupnir-4"), options(longest))


def test_a_role_whose_name_would_hide_another_service_is_refused() -> None:
    with pytest.raises(ConfigError, match="the name of the service"):
        formats.service(reached(role="a]b"))


# dotenv

DOTENV = ["it's =#%&+;:@(x) é", ' "quoted" ', "#", "a  b", "datenbank_für_öl", "'", '"', "=", "&;|<>(){}*?[]!~"]


def by_sh(text: str, folder: Path) -> dict[str, str]:
    (folder / ".env").write_text(text + "\n")
    return _run_shell("sh", "set -a; . ./.env; env -0", folder, {})


@pytest.mark.parametrize("name", DOTENV)
def test_a_shell_reads_dotenv(name: str, tmp_path: Path) -> None:
    place = reached(name, name, name.replace(":", ""))
    assert by_sh(formats.dotenv(place), tmp_path) == {**variables(place), "DATABASE_URL": formats.url(place)}


@MANY
@given(database=NAMES, role=NAMES, folder=FOLDERS)
def test_a_shell_reads_any_dotenv_whole_or_it_is_refused(database: str, role: str, folder: str, tmp_path: Path) -> None:
    place = reached(database, role, folder)
    try:
        text = formats.dotenv(place)
    except ConfigError:
        return
    assert by_sh(text, tmp_path) == {**variables(place), "DATABASE_URL": formats.url(place)}


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.parametrize("name", DOTENV)
def test_node_reads_dotenv(name: str, tmp_path: Path) -> None:
    place = reached(name, name, name.replace(":", ""))
    (tmp_path / ".env").write_text(formats.dotenv(place) + "\n")
    program = "process.stdout.write(JSON.stringify(process.env))"
    command = ["node", f"--env-file={tmp_path / '.env'}", "-e", program]
    told = json.loads(subprocess.run(command, env={"PATH": os.environ["PATH"]}, check=True, capture_output=True).stdout)
    assert_has(told, {**variables(place), "DATABASE_URL": formats.url(place)})


@pytest.mark.parametrize("database", ["$(x)", "${HOME}", "$HOME", "a\\nb", "`x`", "a\nb", "both ' and \""])
def test_values_that_dotenv_readers_parse_differently_are_refused(database: str) -> None:
    with pytest.raises(ConfigError, match="dotenv cannot express PGDATABASE"):
        formats.dotenv(reached(database))


# json


def test_json_expresses_every_name() -> None:
    place = reached(EVERYTHING, EVERYTHING, EVERYTHING.replace(":", ""))
    assert json.loads(formats.as_json(place)) == variables(place)
