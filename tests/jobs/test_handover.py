"""Databases as production has them go through the finalise job's steps on a real cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from draupnir_helper.jobs import handover, inspections
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows
from tests import finalising
from tests.postgres import Cluster, binaries, throw_away

LATIN_1 = "M\xfcller"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "anonymisation_script.sql"
    path.write_text("SELECT 1;\n")
    return path


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Start a cluster in the locale C, whose template1 is SQL_ASCII."""
    with throw_away("C") as cluster:
        yield cluster


def run(cluster: Cluster, database: str, *statements: str | bytes) -> None:
    """Run the statements as superuser; bytes are in Latin-1."""
    with psycopg.connect(cluster.dsn(database), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement if isinstance(statement, bytes) else statement.encode())


def answer(cluster: Cluster, database: str, query: str, role: str = "draupnir") -> object:
    dsn = cluster.dsn(database).replace("user=postgres", f"user={role}")
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row[0].decode() if row and isinstance(row[0], bytes) else row and row[0]


def test_names_of_an_sql_ascii_database_may_have_any_encoding(cluster: Cluster, script: Path) -> None:
    run(
        cluster,
        "postgres",
        "CREATE ROLE app LOGIN",
        "CREATE DATABASE ascii",
        "CREATE DATABASE utf8 ENCODING 'UTF8' TEMPLATE template0",
    )
    table = f'CREATE TABLE "{LATIN_1}" (id int PRIMARY KEY, "{LATIN_1}" text)'.encode("latin-1")
    run(cluster, "ascii", table)
    run(cluster, "utf8", f'CREATE TABLE "{LATIN_1}" (id int)'.encode())
    judged, database = finalising.finalised(cluster, script)
    assert database == "postgres"
    owners = "SELECT string_agg(DISTINCT relowner::regrole::text, ',') FROM pg_class WHERE relnamespace = 2200"
    for name in ("ascii", "utf8"):
        assert answer(cluster, name, owners) == "draupnir"
        dump = [
            str(binaries() / "pg_dump"),
            "-f",
            "/dev/null",
            cluster.dsn(name).replace("user=postgres", "user=draupnir"),
        ]
        subprocess.run(dump, check=True, capture_output=True)
    inspections.inspect(checkpointed(cluster), finalising.MAJOR, judged)


def test_procedures_that_differ_in_output_arguments_are_handed_over(cluster: Cluster, script: Path) -> None:
    body = "LANGUAGE plpgsql AS 'BEGIN END'"
    modes = ("OUT a int, IN b int, IN c int", "IN a int, IN b int, IN c int", "INOUT a text, VARIADIC b int[]")
    run(cluster, "postgres", *(f'CREATE PROCEDURE "P"({arguments}) {body}' for arguments in modes))
    run(cluster, "postgres", "CREATE AGGREGATE total(ORDER BY int) (SFUNC = int4pl, STYPE = int)")
    finalising.finalised(cluster, script)
    owners = "SELECT string_agg(DISTINCT proowner::regrole::text, ',') FROM pg_proc WHERE pronamespace = 2200"
    assert answer(cluster, "postgres", owners) == "draupnir"


@pytest.mark.parametrize(
    ("databases", "with_data", "default"),
    [
        (["postgres", "my_db"], ["my_db"], "my_db"),
        (["postgres", "my_db", "other"], ["my_db", "other"], "postgres"),
        (["template1", "my_db", "other"], ["my_db", "other"], "my_db"),
        (["template1", "postgres"], [], "postgres"),
        (["template1", "postgres", "M\udcfcller"], ["M\udcfcller"], "postgres"),
        (["template1", "M\udcfcller"], ["M\udcfcller"], "template1"),
    ],
)
def test_the_default_database_exists_and_has_a_name_that_the_api_can_return(
    databases: list[str], with_data: list[str], default: str
) -> None:
    assert handover.default_database(databases, with_data) == default


@pytest.mark.parametrize("databases", [["shop"], ["shop", "crm"]])
def test_the_report_lists_the_databases_with_data_if_there_are_several(
    cluster: Cluster, script: Path, databases: list[str]
) -> None:
    for name in databases:
        run(cluster, "postgres", f"CREATE DATABASE {name}")
        run(cluster, name, "CREATE TABLE t (id int)")
    run(cluster, "postgres", "CREATE DATABASE empty")
    _, database = finalising.finalised(cluster, script)
    found = [row.detail for row in Rows(script.parent) if row.code == "several_databases"]
    if len(databases) == 1:
        assert (database, found) == ("shop", [])
    else:
        text = "Clients connect to the database postgres by default. These databases have tables: crm, shop."
        assert (database, found) == ("postgres", [text])


def checkpointed(cluster: Cluster) -> Path:
    """Stop the cluster, since nobody may ask it for a checkpoint, and return its data directory."""
    pid = int((cluster.data / "postmaster.pid").read_text().split()[0])
    subprocess.run(["kill", "-INT", str(pid)], check=True)
    while (cluster.data / "postmaster.pid").exists():
        pass
    return cluster.data


# Of a role whose name is not valid in the database.
FOREIGN = (
    "CREATE EXTENSION postgres_fdw",
    "CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw",
    "DO $$ BEGIN EXECUTE format('CREATE USER MAPPING FOR %s SERVER away', {0}::regrole); END $$",
    "DO $$ BEGIN EXECUTE format('ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO %s', {0}::regrole); END $$",
)


@pytest.mark.parametrize("encoding", ["UTF8", "EUC_JP"])
def test_names_that_databases_share_may_have_another_encoding(encoding: str, script: Path) -> None:
    """Each name has the encoding of the database in which it was given; template1 may have another one."""
    name = f'"{LATIN_1}"'.encode("latin-1")
    with throw_away("C", encoding) as cluster:
        for each in ("SQL_ASCII", "UTF8", "EUC_JP"):
            run(cluster, "postgres", f"CREATE DATABASE in_{each} ENCODING '{each}' TEMPLATE template0")
        run(cluster, "in_sql_ascii", b"CREATE ROLE " + name + b" LOGIN BYPASSRLS", b"CREATE DATABASE " + name)
        newest = "SELECT oid FROM pg_roles ORDER BY oid DESC LIMIT 1"
        oid = answer(cluster, "in_sql_ascii", newest, "postgres")
        run(cluster, "in_sql_ascii", b"CREATE DATABASE half_" + name[1:-1].replace(b"M", b"m"))
        run(cluster, "in_sql_ascii", b"ALTER DATABASE " + name + b" OWNER TO " + name)
        for database in ("in_utf8", "in_euc_jp"):
            run(cluster, database, *(each.format(oid) for each in FOREIGN))
        run(cluster, "in_utf8", 'CREATE ROLE "\u00c1lvaro" LOGIN BYPASSRLS')
        run(cluster, "postgres", "UPDATE pg_database SET datconnlimit = -2 WHERE datname ~ '^half'")
        script.write_text("CREATE TABLE t (id int);\n")
        judged, _ = finalising.finalised(cluster, script)
        members = f"SELECT count(*) FROM pg_auth_members WHERE roleid = {oid} AND member = 'draupnir'::regrole"
        assert answer(cluster, "in_sql_ascii", members) == 1
        assert answer(cluster, "in_sql_ascii", "SELECT count(*) FROM pg_database WHERE datname ~ 'ller$'") == 1
        assert answer(cluster, "in_utf8", "SELECT count(*) FROM pg_user_mappings") == 0
        granted = "SELECT count(*) FROM pg_default_acl WHERE defaclrole = 'draupnir'::regrole"
        assert answer(cluster, "in_utf8", granted) == 1
        inspections.inspect(checkpointed(cluster), finalising.MAJOR, judged)
    found = {(row.code, row.object) for row in Rows(script.parent)}
    assert ("role_limited", r"M\xfcller") in found
    assert ("role_limited", "\u00c1lvaro") in found


def test_only_roles_with_the_name_of_the_group_are_refused(cluster: Cluster, script: Path) -> None:
    run(cluster, "postgres", "CREATE ROLE draupnir_superusers")
    with pytest.raises(JobError) as raised:
        finalising.finalised(cluster, script)
    assert raised.value.code == "role_conflict"


def test_a_script_can_give_draupnir_settings_and_memberships(cluster: Cluster, script: Path) -> None:
    script.write_text("CREATE ROLE app;\nGRANT app TO draupnir;\nALTER ROLE draupnir SET search_path = app, public;\n")
    run(cluster, "postgres", "CREATE ROLE draupnir", "ALTER ROLE draupnir SET work_mem = '1GB'")
    finalising.finalised(cluster, script)
    assert answer(cluster, "postgres", "SHOW search_path") == "app, public"
    assert answer(cluster, "postgres", "SHOW work_mem") != "1GB"


def test_sessions_of_the_job_override_settings_of_roles_and_databases(cluster: Cluster, script: Path) -> None:
    settings = {
        "statement_timeout": "1ms",
        "default_transaction_read_only": "on",
        "role": "app",
        "default_transaction_isolation": "serializable",
        "temp_file_limit": "1",
        "quote_all_identifiers": "on",
        "standard_conforming_strings": "off",
    }
    run(cluster, "postgres", "CREATE ROLE app LOGIN", "CREATE DATABASE my_db")
    run(cluster, "my_db", "CREATE TABLE t AS SELECT generate_series(1, 10) AS id")
    run(cluster, "postgres", *(f"ALTER DATABASE my_db SET {name} = '{value}'" for name, value in settings.items()))
    script.write_text("\\c my_db\nDELETE FROM t;\nSELECT pg_sleep(0.1);\n")
    _, database = finalising.finalised(cluster, script)
    assert database == "my_db"
    assert answer(cluster, "postgres", "SELECT cardinality(setconfig) FROM pg_db_role_setting") == len(settings)


def test_the_report_names_what_was_changed(cluster: Cluster, script: Path) -> None:
    run(
        cluster,
        "postgres",
        "CREATE ROLE boss BYPASSRLS REPLICATION",
        "CREATE ROLE app",
        "GRANT pg_signal_backend TO app",
    )
    run(cluster, "postgres", "CREATE DATABASE limited CONNECTION LIMIT 0", "CREATE DATABASE half")
    run(cluster, "postgres", "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half'")
    finalising.finalised(cluster, script)
    found = {(row.code, row.database or row.object, row.detail) for row in Rows(script.parent)}
    assert found >= {
        ("role_limited", "boss", "The role lost REPLICATION, BYPASSRLS."),
        ("role_limited", "app", "The role lost the membership in pg_signal_backend."),
        (
            "connection_limit_removed",
            "limited",
            "The database had CONNECTION LIMIT 0. It accepts connections in an instance.",
        ),
        ("database_dropped", "half", "DROP DATABASE was interrupted at the source, so the database was dropped."),
    }


def test_the_view_of_settings_stays_as_initdb_made_it(cluster: Cluster, script: Path) -> None:
    """Initdb lets everybody update pg_settings, which sets the parameter; a dump would contain another grant."""
    run(cluster, "postgres", "CREATE ROLE app LOGIN")
    finalising.finalised(cluster, script)
    changed = "UPDATE pg_settings SET setting = '7MB' WHERE name = 'work_mem'"
    for role in ("app", "draupnir"):
        with psycopg.connect(cluster.dsn("postgres").replace("user=postgres", f"user={role}")) as connection:
            connection.execute(changed)
            assert connection.execute("SHOW work_mem").fetchone() == (b"7MB",)
    grants = (
        "SELECT relacl::text = initprivs::text FROM pg_class JOIN pg_init_privs ON objoid = oid AND classoid = 1259"
        " WHERE oid = 'pg_settings'::regclass"
    )
    assert answer(cluster, "postgres", grants) is True


def test_a_replaced_rule_on_the_view_of_settings_does_not_run_as_the_superuser(cluster: Cluster, script: Path) -> None:
    run(
        cluster,
        "postgres",
        "CREATE ROLE app LOGIN",
        "GRANT pg_write_all_data TO app",
        "SET allow_system_table_mods = on; CREATE OR REPLACE RULE pg_settings_u AS ON UPDATE TO pg_settings"
        " DO INSTEAD UPDATE pg_database SET datconnlimit = 7 WHERE datname = 'postgres'",
    )
    finalising.finalised(cluster, script)
    for role in ("app", "draupnir"):
        with psycopg.connect(cluster.dsn("postgres").replace("user=postgres", f"user={role}")) as connection:
            connection.execute("UPDATE pg_settings SET setting = '7MB' WHERE name = 'work_mem'")
            assert connection.execute("SHOW work_mem").fetchone() == (b"7MB",)
    assert answer(cluster, "postgres", "SELECT datconnlimit FROM pg_database WHERE datname = 'postgres'") == -1


@pytest.mark.skipif(finalising.MAJOR < 14, reason="pg_database_owner exists from 14 on")
def test_objects_of_pg_database_owner_stay_and_those_of_other_predefined_roles_are_reported(
    cluster: Cluster, script: Path
) -> None:
    run(cluster, "postgres", "CREATE ROLE app LOGIN", "CREATE DATABASE shop OWNER app")
    run(
        cluster,
        "shop",
        "CREATE TABLE kept AS SELECT 1 AS id",
        "CREATE TYPE mood AS ENUM ('ok')",
        "CREATE FUNCTION tell() RETURNS text LANGUAGE sql SECURITY DEFINER RETURN current_user",
        "CREATE TABLE watched AS SELECT 1 AS id",
        "ALTER TABLE kept OWNER TO pg_database_owner",
        "ALTER TYPE mood OWNER TO pg_database_owner",
        "ALTER FUNCTION tell() OWNER TO pg_database_owner",
        "ALTER TABLE watched OWNER TO pg_monitor",
    )
    # The owner of template1 is the bootstrap superuser, as which nobody can act.
    run(cluster, "template1", "CREATE TABLE t (id int)", "ALTER TABLE t OWNER TO pg_database_owner")
    judged, _ = finalising.finalised(cluster, script)
    owner = "SELECT relowner::regrole::text FROM pg_class WHERE relname = '{}'"
    assert answer(cluster, "shop", owner.format("kept")) == "pg_database_owner"
    assert answer(cluster, "shop", owner.format("watched")) == "draupnir"
    assert answer(cluster, "template1", owner.format("t")) == "draupnir"
    for role in ("app", "draupnir"):
        with psycopg.connect(
            cluster.dsn("shop").replace("user=postgres", f"user={role}"), autocommit=True
        ) as connection:
            connection.execute(f"ALTER TABLE kept ADD of_{role} int")
            connection.execute(f"ALTER TYPE mood ADD VALUE '{role}'")
        assert answer(cluster, "shop", "SELECT tell()", role) == "pg_database_owner"
    found = {(row.database, row.object) for row in Rows(script.parent) if row.code == "owner_changed"}
    assert found == {("shop", "pg_monitor"), ("template1", "pg_database_owner")}
    inspections.inspect(checkpointed(cluster), finalising.MAJOR, judged)
