"""Materialized views that the script did not refresh are refreshed, or emptied and reported."""

from __future__ import annotations

from pathlib import Path

import psycopg

from draupnir_helper.jobs import surveys
from draupnir_helper.jobs.rows import Rows
from tests.finalising import job_on
from tests.postgres import Cluster

STATEMENTS = """
CREATE TABLE users AS SELECT 'jane@corp.example' AS email, 1 AS tenant;
CREATE MATERIALIZED VIEW plain AS SELECT email FROM users;
CREATE MATERIALIZED VIEW "of a tenant" AS SELECT email FROM users WHERE tenant = current_setting('app.tenant')::int
"""


def test_a_materialized_view_that_cannot_be_refreshed_is_emptied_and_reported(cluster: Cluster, tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection, job_on(cluster) as job:
        connection.execute("CREATE DATABASE viewed")
        with psycopg.connect(cluster.dsn("viewed"), autocommit=True) as viewed:
            viewed.execute("SET app.tenant = 1")
            for statement in STATEMENTS.split(";\n"):
                viewed.execute(statement.encode())
            before = surveys.survey(job, {"viewed": 5})
            viewed.execute("UPDATE users SET email = 'user@example.com'")
            surveys.refresh(job, {"viewed": 5}, before, rows)
            emptied = viewed.execute(
                "SELECT relname FROM pg_class WHERE relkind = 'm' AND NOT relispopulated"
            ).fetchall()
            assert viewed.execute("SELECT email FROM plain").fetchall() == [("user@example.com",)]
        connection.execute("DROP DATABASE viewed")
    assert emptied == [("of a tenant",)]
    assert [(row.code, row.database, row.object) for row in rows] == [
        ("materialized_view_emptied", "viewed", 'public."of a tenant"')
    ]
