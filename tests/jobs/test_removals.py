"""The report of an image names what the job removes, and an ordinary database has nothing of it."""

from __future__ import annotations

from pathlib import Path

import psycopg

from draupnir_helper.jobs import removals
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
CREATE SUBSCRIPTION feed CONNECTION 'host=10.9.8.7' PUBLICATION p WITH (connect = false);
"""


def found(cluster: Cluster, directory: Path, *databases: str) -> set[tuple[str, str, str]]:
    rows = Rows(directory)
    with job_on(cluster) as job:
        removals.report(job, databases, rows)
    assert all("secret" not in str(row) for row in rows)
    return {(row.code, row.database, row.object) for row in rows}


def test_each_object_that_is_removed_has_a_row(cluster: Cluster, tmp_path: Path) -> None:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE linked")
        before = found(cluster, tmp_path, "template1", "linked")
        with psycopg.connect(cluster.dsn("linked"), autocommit=True) as linked:
            for statement in STATEMENTS.split(";\n"):
                linked.execute(statement.encode())
        after = found(cluster, tmp_path, "template1", "linked")
        with psycopg.connect(cluster.dsn("linked"), autocommit=True) as linked:
            linked.execute("ALTER SUBSCRIPTION feed SET (slot_name = NONE)")
            linked.execute("DROP SUBSCRIPTION feed")
            linked.execute("DROP EXTENSION postgres_fdw, file_fdw CASCADE")
        connection.execute("DROP DATABASE linked")
        connection.execute("DROP ROLE boss")
    assert before == set()
    assert after == {
        ("event_trigger_disabled", "linked", "the audit"),
        ("foreign_table_dropped", "linked", "public.passwd"),
        ("role_setting_dropped", "", "boss session_preload_libraries"),
        ("subscription_dropped", "linked", "feed"),
        ("superuser_demoted", "", "boss"),
        ("user_mapping_dropped", "linked", "production boss"),
    }
