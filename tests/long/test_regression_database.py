"""Postgres's regression database becomes an image; a dump of an instance differs from the source's as the report says.

Its tests leave objects of every kind. Only their SQL is here, so tables that they fill from files are empty, and
functions of their library are missing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.backups import BINARIES, Source
from tests.system.service import Service, run

TESTS = Path("/usr/local/share/postgres-tests")
# Others need their objects.
FIRST = ("test_setup", "create_type", "create_table", "create_misc", "create_index", "create_view", "inherit")
ENTRY = re.compile(r"^--\n-- (?:Data for )?Name: (.*); Type: (.*); Schema: (.*); Owner: .*\n--\n", re.MULTILINE)
# pg_regress sets these.
ENVIRONMENT = {
    "PG_ABS_SRCDIR": "/nonexistent",
    "PG_ABS_BUILDDIR": "/nonexistent",
    "PG_LIBDIR": "$libdir",
    "PG_DLSUFFIX": ".so",
    "PGTZ": "America/Los_Angeles",
    "PGDATESTYLE": "Postgres, MDY",
}
CODES = ("function_closed", "event_trigger_disabled")
SETTINGS = "max_prepared_transactions = 2\nallow_in_place_tablespaces = on\nfsync = off\n"

pytestmark = pytest.mark.skipif(not TESTS.exists(), reason="the machine has no tests of Postgres")

Entries = dict[tuple[str, ...], str]  # what pg_dump writes for each object, by name, type and schema


@dataclass
class Copied:
    """The entries of the source's dump and of the instance's, and the rows of the report."""

    source: Entries
    copy: Entries
    rows: list[dict[str, str]]


@pytest.fixture(scope="module")
def copied(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copied]:
    source = Source.empty(tmp_path_factory.mktemp("regression"), "--locale=C", "--encoding=UTF8")
    with (source.data / "postgresql.conf").open("a") as file:
        file.write(SETTINGS)
    source.start()
    regress(source)
    found = entries(
        run(BINARIES / "pg_dump", "-h", source.directory, "-p", "5999", "-U", "postgres", "regression").stdout
    )
    source.stop()
    image = service.make_image(source.tarball("regression.tar"), "SELECT 1;")
    shutil.rmtree(source.directory)
    rows = service.ask("GET", f"/images/{image}/report").json()["data"]["attributes"]["rows"]
    instance = int(service.create_instance(image)["id"])
    environment = {**service.environment(instance), "PGDATABASE": "regression"}
    yield Copied(found, entries(run(BINARIES / "pg_dump", "--enable-row-security", env=environment).stdout), rows)
    service.destroy_image(image)


def regress(source: Source) -> None:
    """Run the SQL of all tests, whose errors are intended, one test after the other."""
    source.sql("CREATE DATABASE regression TEMPLATE template0", "postgres")
    psql = ("runuser", "-u", "postgres", "--", BINARIES / "psql", "-Xq", "-h", source.directory, "-p", "5999")
    names = sorted(path.stem for path in TESTS.iterdir())
    for name in [*FIRST, *(name for name in names if name not in FIRST)]:
        run(
            *psql, "-d", "regression", "-o", "/dev/null", "-f", TESTS / f"{name}.sql",
            ok=False, env={**os.environ, **ENVIRONMENT}, cwd="/", errors="replace",
        )  # fmt: skip


def entries(dump: str) -> Entries:
    """Return the entries of a dump; the superuser's objects are draupnir's in the copy."""
    # The end has a random word.
    _, *parts = ENTRY.split(dump[: dump.rindex("--\n-- PostgreSQL database dump complete")])
    found: Entries = {}
    for name, kind, schema, body in zip(parts[::4], parts[1::4], parts[2::4], parts[3::4], strict=True):
        body = re.sub(r"\b(OWNER TO|FROM|TO|FOR ROLE|GRANTED BY) postgres\b", r"\1 draupnir", body)
        key = (name, kind, schema)
        found[key] = found.get(key, "") + body
    return found


def test_a_dump_of_the_copy_is_that_of_the_source_but_for_what_the_report_says(copied: Copied) -> None:
    assert len(copied.source) > 2000
    reported = {code: {row["object"] for row in copied.rows if row["code"] == code} for code in CODES}
    # The superuser had granted itself columns that nobody else may read.
    assert copied.source.keys() - copied.copy.keys() == {
        (f"COLUMN pg_authid.{column}", "ACL", "pg_catalog") for column in ("rolname", "rolsuper")
    }
    assert copied.copy.keys() - copied.source.keys() == {
        (f"FUNCTION {name.removeprefix('public.')}", "ACL", "public") for name in reported["function_closed"]
    }
    changed = {key for key in copied.source.keys() & copied.copy.keys() if copied.source[key] != copied.copy[key]}
    assert changed == {(name, "EVENT TRIGGER", "-") for name in reported["event_trigger_disabled"]}
