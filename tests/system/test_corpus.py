"""One cluster of the locale C with databases of every encoding, and what only some of production's databases have."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system import world
from tests.system.backups import MAJOR, Source
from tests.system.service import Service, run

# As psql and the operating system read it: bytes of Latin-1, which are not UTF-8.
LATIN_1 = "M\udcfcller"
CLUSTER = """
CREATE ROLE app LOGIN;
CREATE DATABASE my_db ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE bare ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE ascii;
CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0;
CREATE DATABASE japanese ENCODING 'EUC_JP' TEMPLATE template0;
CREATE DATABASE odd ENCODING 'UTF8' TEMPLATE template0;
DROP DATABASE postgres;
"""
NAMED = f"""
CREATE TABLE "{LATIN_1}" (id int PRIMARY KEY, "{LATIN_1}" text);
INSERT INTO "{LATIN_1}" VALUES (1, '{LATIN_1}'), (2, 'plain');
CREATE INDEX ON "{LATIN_1}" (lower("{LATIN_1}"));
CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM "{LATIN_1}";
"""
ASCII = f"""
CREATE ROLE "{LATIN_1}" LOGIN BYPASSRLS;
CREATE DATABASE "{LATIN_1}" OWNER "{LATIN_1}";
{NAMED}
ALTER TABLE "{LATIN_1}" OWNER TO "{LATIN_1}";
CREATE TABLE of_postgres (id int);
GRANT SELECT ON of_postgres TO "{LATIN_1}";
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO "{LATIN_1}";
CREATE EXTENSION postgres_fdw;
CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '10.9.8.7');
CREATE USER MAPPING FOR "{LATIN_1}" SERVER away OPTIONS (password 'secret');
"""
JAPANESE = """
SET client_encoding = 'UTF8';
CREATE TABLE "表" (id int PRIMARY KEY);
"""
# A partition that nobody can read here, of a parent that has statistics.
FOREIGN = """
CREATE ROLE "Álvaro" LOGIN BYPASSRLS;
CREATE EXTENSION postgres_fdw;
CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nonexistent');
CREATE TABLE mixed (n int, seven int) PARTITION BY RANGE (n);
CREATE TABLE here PARTITION OF mixed FOR VALUES FROM (0) TO (2000);
INSERT INTO mixed SELECT i, i % 7 FROM generate_series(1, 1000) i;
ANALYZE mixed;
CREATE FOREIGN TABLE there PARTITION OF mixed FOR VALUES FROM (2000) TO (3000) SERVER away;
"""
# Each of these would break a session of the job, or changes what a session of the source returns.
ODD_SETTINGS = {
    "statement_timeout": "1s",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "temp_file_limit": "1kB",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "client_encoding": "LATIN1",
    "default_table_access_method": "columnar",
    "idle_in_transaction_session_timeout": "1s",
    "lock_timeout": "1s",
    "extra_float_digits": "-15",
    "intervalstyle": "iso_8601",
    "xmloption": "document",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "row_security": "off",
    "exit_on_error": "on",
    "jit": "on",
    "session_preload_libraries": "anon",
    "session_replication_role": "replica",
}
ODD = "".join(f"ALTER DATABASE odd SET {name} = '{value}';\n" for name, value in ODD_SETTINGS.items())
# The query of one needs a setting that only the application makes.
VIEWED = """
CREATE TABLE users AS SELECT 'jane@corp.example' AS email, 1 AS tenant;
CREATE MATERIALIZED VIEW plain AS SELECT email FROM users;
SET app.tenant = 1;
CREATE MATERIALIZED VIEW of_tenant AS SELECT email FROM users WHERE tenant = current_setting('app.tenant')::int;
"""
EXTENSION = Path(f"/usr/share/postgresql/{MAJOR}/extension/own_tables")
EXTENSION_FILES = {
    ".control": "default_version = '1'\nrelocatable = false\n",
    "--1.sql": """
        CREATE TABLE part_config (parent text PRIMARY KEY, id serial);
        SELECT pg_catalog.pg_extension_config_dump('part_config', '');
        SELECT pg_catalog.pg_extension_config_dump('part_config_id_seq', '');
        CREATE TABLE internals (x int);
    """,
}
# As pg_partman: tables of the extension that the users fill, and that pg_dump reads.
EXTENDED = """
CREATE SCHEMA partman;
CREATE EXTENSION own_tables SCHEMA partman;
INSERT INTO partman.part_config VALUES ('orders');
"""
GRANTED = """
GRANT USAGE ON SCHEMA partman TO app;
GRANT ALL ON ALL TABLES IN SCHEMA partman TO app;
GRANT ALL ON ALL SEQUENCES IN SCHEMA partman TO app;
"""
# The script is UTF-8, so the server has to write names that are not.
SCRIPT = """
\\c ascii
\\encoding SQL_ASCII
SELECT format('UPDATE %s SET %I = ''anonymous''', attrelid::regclass, attname) FROM pg_attribute
 WHERE attrelid >= 16384 AND attname ~ '^M' AND attrelid IN (SELECT oid FROM pg_class WHERE relkind = 'r')
\\gexec
SELECT relname FROM pg_class WHERE relname ~ '^M';
\\c odd
UPDATE users SET email = 'user@example.com';
SELECT pg_sleep(1.1);
"""


@dataclass
class Copied:
    """The image, an instance of it, and the rows of the report."""

    image: int
    instance: int
    rows: list[dict[str, str]]


@pytest.fixture(scope="module")
def copied(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copied]:
    for ending, text in EXTENSION_FILES.items():
        EXTENSION.with_name(EXTENSION.name + ending).write_text(text)
    source = Source.empty(tmp_path_factory.mktemp("corpus"), "--locale=C")
    source.start()
    source.script(CLUSTER, "template1")
    source.script(FOREIGN + EXTENDED + GRANTED)
    source.script(EXTENDED, "bare")
    source.script(ASCII, "ascii")
    source.script(NAMED, LATIN_1)
    source.script(NAMED, "latin")
    source.script(JAPANESE, "japanese")
    source.script(VIEWED, "odd")
    source.script(ODD, "template1")
    source.stop()
    before = world.observe()
    image = service.make_image(source.tarball("corpus.tar"), SCRIPT)
    rows = service.ask("GET", f"/images/{image}/report").json()["data"]["attributes"]["rows"]
    instance = int(service.create_instance(image)["id"])
    # From now on its processes are part of the world.
    service.answer(instance, "SELECT 1")
    yield Copied(image, instance, rows)
    service.destroy_image(image)
    world.await_equal(before)
    for ending in EXTENSION_FILES:
        EXTENSION.with_name(EXTENSION.name + ending).unlink()
    shutil.rmtree(source.directory)


@pytest.mark.parametrize(
    "database", ["template1", "my_db", "bare", "ascii", "latin", "japanese", "odd", LATIN_1], ids=ascii
)
def test_every_database_can_be_used_and_dumped(service: Service, copied: Copied, database: str) -> None:
    assert service.answer(copied.instance, "SELECT count(*) > 100 FROM pg_class", database) == "t"
    environment = service.environment(copied.instance)
    # Else the dump would be in the encoding that the database sets, which lacks characters of the roles' names.
    encoding = ("--encoding", "UTF8") if database == "odd" else ()
    run("pg_dump", "-f", "/dev/null", *encoding, env={**environment, "PGDATABASE": database})


def test_the_script_can_change_rows_of_tables_whose_names_are_not_utf_8(service: Service, copied: Copied) -> None:
    raw = f'SELECT count(*) FROM "{LATIN_1}" WHERE "{LATIN_1}" <> \'anonymous\''
    assert service.psql(copied.instance, raw, "ascii", PGCLIENTENCODING="SQL_ASCII").stdout == "0\n"


@pytest.mark.parametrize("database", ["latin", LATIN_1], ids=ascii)
def test_names_and_rows_keep_their_bytes(service: Service, copied: Copied, database: str) -> None:
    encoding = "LATIN1" if database == "latin" else "SQL_ASCII"
    found = service.psql(
        copied.instance,
        f'SELECT id FROM "{LATIN_1}" WHERE "{LATIN_1}" = \'{LATIN_1}\'',
        database,
        PGCLIENTENCODING=encoding,
    )
    assert found.stdout == "1\n"
    service.psql(copied.instance, f'ALTER TABLE "{LATIN_1}" ADD COLUMN more int', database, PGCLIENTENCODING=encoding)


def test_a_role_whose_name_is_not_utf_8_can_be_become_and_its_sign_in_is_refused(
    service: Service, copied: Copied
) -> None:
    become = f'SET ROLE "{LATIN_1}"; SELECT count(*) FROM of_postgres'
    assert service.psql(copied.instance, become, "ascii", PGCLIENTENCODING="SQL_ASCII").stdout == "0\n"
    answer = service.ask("GET", f"/instances/{copied.instance}?role=M%FCller")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "role_refused")
    refused = service.client("env", str(copied.instance), "--role", LATIN_1, ok=False)
    assert "UTF-8" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_report_names_them(copied: Copied) -> None:
    found = {(row["code"], row["database"], row["object"]) for row in copied.rows}
    assert found >= {
        ("role_limited", "", r"M\xfcller"),
        ("role_limited", "", "Álvaro"),
        ("user_mapping_dropped", "ascii", r"away M\xfcller"),
    }


def test_the_default_database_exists_without_postgres(service: Service, copied: Copied) -> None:
    default = service.image(copied.image)["database"]
    assert service.answer(copied.instance, "SELECT current_database()", default) == default


def test_settings_of_a_database_break_no_step_and_stay(service: Service, copied: Copied) -> None:
    settings = """SELECT unnest(setconfig) FROM pg_db_role_setting
                    JOIN pg_database d ON d.oid = setdatabase WHERE datname = 'odd'"""
    kept = dict(line.lower().split("=") for line in service.answer(copied.instance, settings, "ascii").splitlines())
    dropped = {"jit", "session_preload_libraries", "session_replication_role"}
    assert ODD_SETTINGS.keys() - kept.keys() == dropped
    found = {(row["code"], row["object"]) for row in copied.rows}
    assert found >= {("role_setting_dropped", f"odd {name}") for name in dropped}


def test_a_materialized_view_has_nothing_that_the_script_changed(service: Service, copied: Copied) -> None:
    assert service.answer(copied.instance, "SELECT email FROM plain", "odd") == "user@example.com"
    populated = "SELECT relispopulated FROM pg_class WHERE relname = 'of_tenant'"
    assert service.answer(copied.instance, populated, "odd") == "f"
    (row,) = (row for row in copied.rows if row["code"] == "materialized_view_emptied")
    assert (row["database"], row["object"]) == ("odd", "public.of_tenant")


def test_a_foreign_partition_costs_no_statistics_of_its_parent(service: Service, copied: Copied) -> None:
    columns = "SELECT count(*) FROM pg_stats WHERE tablename = 'mixed' AND inherited"
    assert service.answer(copied.instance, columns) == "2"
    (row,) = (row for row in copied.rows if row["code"] == "analyze_failed")
    assert (row["database"], row["object"]) == ("my_db", "public.mixed")


def test_tables_of_extensions_can_be_used_as_at_the_source(service: Service, copied: Copied) -> None:
    service.psql(copied.instance, "SET ROLE app; INSERT INTO partman.part_config VALUES ('lines')")
    assert service.answer(copied.instance, "SELECT count(*) FROM partman.part_config") == "2"
    assert service.answer(copied.instance, "SELECT parent FROM partman.part_config", "bare") == "orders"
    refused = service.psql(copied.instance, "INSERT INTO partman.part_config VALUES ('lines')", "bare", ok=False)
    assert "permission denied" in refused.stderr
