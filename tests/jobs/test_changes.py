"""The report of an image lists the changes of the job, and none for an ordinary database."""

from __future__ import annotations

from pathlib import Path

import psycopg

from draupnir_helper.jobs import changes, handover
from draupnir_helper.jobs.rows import Rows
from tests.finalising import job_on
from tests.postgres import Cluster

STATEMENTS = """
CREATE ROLE boss SUPERUSER;
ALTER ROLE boss SET session_preload_libraries = 'anon';
ALTER ROLE boss SET work_mem = '5MB';
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION file_fdw;
CREATE SERVER production FOREIGN DATA WRAPPER postgres_fdw;
CREATE USER MAPPING FOR boss SERVER production OPTIONS (user 'u', password 'secret');
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE passwd (line text) SERVER files OPTIONS (filename '/etc/passwd');
CREATE FUNCTION audit() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER "the audit" ON ddl_command_end EXECUTE FUNCTION audit();
CREATE TABLE cut AS SELECT 1 AS id, 'x' AS x;
ALTER TABLE cut DROP COLUMN x;
CREATE UNLOGGED TABLE session AS SELECT 1 AS id;
ANALYZE session;
CREATE ROLE monitoring REPLICATION;
GRANT pg_read_server_files TO monitoring;
GRANT SELECT ON pg_shadow TO monitoring;
GRANT SELECT ON pg_class TO monitoring;
GRANT EXECUTE ON FUNCTION pg_read_file(text) TO monitoring;
CREATE SUBSCRIPTION feed CONNECTION 'host=10.9.8.7' PUBLICATION p WITH (connect = false);
"""


def found(cluster: Cluster, directory: Path, *databases: str) -> set[tuple[str, str, str]]:
    rows = Rows(directory)
    with job_on(cluster) as job:
        changes.report_cluster(job, rows)
        changes.report_databases(job, databases, rows)
    assert all("secret" not in str(row) for row in rows)
    return {(row.code, row.database, row.object) for row in rows}


def test_each_object_that_is_changed_has_a_row(cluster: Cluster, tmp_path: Path) -> None:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE linked")
        before = found(cluster, tmp_path, "template1", "linked")
        with psycopg.connect(cluster.dsn("linked"), autocommit=True) as linked:
            for statement in STATEMENTS.split(";\n"):
                linked.execute(statement.encode())
            # As recovery leaves it.
            linked.execute("SET allow_system_table_mods = on")
            linked.execute("UPDATE pg_class SET relfilenode = 999999 WHERE relname = 'session'")
        connection.execute("REVOKE CONNECT ON DATABASE linked FROM PUBLIC")
        after = found(cluster, tmp_path, "template1", "linked")
        with psycopg.connect(cluster.dsn("linked"), autocommit=True) as linked:
            linked.execute("ALTER SUBSCRIPTION feed SET (slot_name = NONE)")
            linked.execute("DROP SUBSCRIPTION feed")
            linked.execute("DROP EXTENSION postgres_fdw, file_fdw CASCADE")
            linked.execute("DROP OWNED BY monitoring")
        connection.execute("DROP DATABASE linked")
        connection.execute("DROP ROLE boss, monitoring")
    assert before == set()
    assert after == {
        ("columns_dropped_before", "linked", "public.cut"),
        ("database_opened", "linked", ""),
        ("event_trigger_disabled", "linked", "the audit"),
        ("foreign_table_dropped", "linked", "public.passwd"),
        ("grant_removed", "linked", "pg_read_file(text)"),
        ("grant_removed", "linked", "pg_shadow"),
        ("role_limited", "", "monitoring"),
        ("role_setting_dropped", "", "boss session_preload_libraries"),
        ("subscription_dropped", "linked", "feed"),
        ("superuser_demoted", "", "boss"),
        ("unlogged_table_empty", "linked", "public.session"),
        ("user_mapping_dropped", "linked", "production boss"),
    }


def test_a_function_of_the_data_that_loses_rights_has_a_row(cluster: Cluster, tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE functional")
        with psycopg.connect(cluster.dsn("functional"), autocommit=True) as database:
            # The library of a procedural language, under a name and a signature of the data's own.
            database.execute(
                "CREATE FUNCTION shell(text) RETURNS text LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_validator'"
            )
            database.execute("CREATE FUNCTION plain() RETURNS text LANGUAGE sql AS 'SELECT 1::text'")
        connection.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
        with job_on(cluster) as job:
            changes.report_functions(*handover.judge_functions(job, ["functional"]), rows)
        connection.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS false")
        connection.execute("DROP DATABASE functional")
    assert [(row.code, row.database, row.object) for row in rows] == [
        ("function_closed", "functional", "public.shell(text)")
    ]
