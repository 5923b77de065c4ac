"""The files of a running server show which tables were changed, and only these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from draupnir_helper.jobs import residues
from draupnir_helper.jobs.clusters import Cluster as JobCluster
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.vacuum import Vacuum
from tests.finalising import job_on
from tests.postgres import Cluster, binaries

Connection = psycopg.Connection[tuple[object, ...]]

CONTENT = """
CREATE TABLE plain AS SELECT i AS id, 'x' AS x FROM generate_series(1, 1000) i;
CREATE TABLE other AS SELECT i AS id, 'x' AS x FROM generate_series(1, 1000) i;
ALTER TABLE other DROP COLUMN x;
CREATE TABLE wide (body text);
ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
INSERT INTO wide SELECT repeat('x', 5000);
CREATE TABLE parts (id int, note text) PARTITION BY LIST (id);
CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE part_2 PARTITION OF parts FOR VALUES IN (2);
INSERT INTO parts SELECT i % 2 + 1 FROM generate_series(1, 100) i;
CREATE TABLE indexed (id int);
INSERT INTO indexed SELECT 1;
CREATE INDEX indexed_id ON indexed (id);
CREATE TYPE kind AS ENUM ('a', 'b');
VACUUM ANALYZE;
"""


@contextmanager
def watched(cluster: Cluster) -> Iterator[tuple[Connection, JobCluster, Callable[[], residues.Changed]]]:
    """Yield a session in a database of its own, the job, and a function that returns what has changed since."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS watched WITH (FORCE)")
        connection.execute("CREATE DATABASE watched")
        with job_on(cluster) as job, psycopg.connect(cluster.dsn("watched"), autocommit=True) as session:
            for statement in CONTENT.split(";\n"):
                session.execute(statement.encode())
            found = session.execute("SELECT oid::int FROM pg_database WHERE datname = 'watched'").fetchone()
            assert found is not None
            databases = {"watched": int(found[0])}
            before = residues.survey(job, databases, residues.position(job))
            yield session, job, lambda: residues.find_changed(job, databases, before)["watched"]
        connection.execute("DROP DATABASE watched")


def names(session: Connection, oids: list[int]) -> set[object]:
    return {row[0] for row in session.execute("SELECT relname FROM pg_class WHERE oid = ANY (%s)", [oids])}


@pytest.mark.parametrize(
    ("statements", "changed"),
    [
        ([], set()),
        (["SELECT count(*) FROM plain"], set()),
        (["UPDATE plain SET x = 'y' WHERE id = 500"], {"plain"}),
        (["UPDATE plain SET x = 'y' WHERE id = 500", "UPDATE plain SET x = 'x' WHERE id = 500"], {"plain"}),
        (["BEGIN", "UPDATE plain SET x = 'y'", "ROLLBACK"], {"plain"}),
        (["TRUNCATE plain", "INSERT INTO plain SELECT 1"], {"plain"}),
        (["UPDATE wide SET body = repeat('y', 5000)"], {"wide"}),
        (["ALTER TABLE plain DROP COLUMN x"], {"plain"}),
        (["ALTER TABLE parts DROP COLUMN note"], {"part_1", "part_2"}),
        (["UPDATE parts SET id = 1 WHERE id = 1"], {"part_1"}),
        (["REINDEX INDEX indexed_id"], {"indexed"}),
        (["CREATE TABLE made AS SELECT * FROM plain"], {"made"}),
        (["CREATE UNLOGGED TABLE made AS SELECT * FROM plain"], {"made"}),
        (["UPDATE plain SET x = 'y'", "CHECKPOINT", "SELECT pg_stat_reset()"], {"plain"}),
    ],
)
def test_changed_tables_are_found_and_no_others(cluster: Cluster, statements: list[str], changed: set[object]) -> None:
    with watched(cluster) as (session, _, find_changed):
        for statement in statements:
            session.execute(statement.encode())
        assert names(session, find_changed().tables) == changed


def test_changed_catalogs_are_found(cluster: Cluster) -> None:
    with watched(cluster) as (session, _, find_changed):
        always = names(session, find_changed().catalogs)
        session.execute("ALTER TYPE kind RENAME VALUE 'a' TO 'c'")
        assert names(session, find_changed().catalogs) - always == {"pg_enum"}
        assert always == {"pg_statistic", "pg_statistic_ext_data"}


def test_a_rewritten_table_has_new_files_and_the_same_rows(cluster: Cluster, tmp_path: Path) -> None:
    files = "SELECT relname, relfilenode FROM pg_class WHERE relname IN ('plain', 'other') ORDER BY relname"
    with watched(cluster) as (session, job, find_changed):
        (other, plain) = session.execute(files).fetchall()
        session.execute("DELETE FROM plain WHERE id > 10")
        changed = find_changed()
        Vacuum(job, Rows(tmp_path)).run({"watched": 0}, {}, {"watched": changed.tables})
        residues.rewrite_catalogs(job, {"watched": changed})
        (other_now, plain_now) = session.execute(files).fetchall()
        assert other_now == other
        assert plain_now != plain
        assert session.execute("SELECT count(*) FROM plain").fetchall() == [(10,)]
        # Plans depend on it.
        assert session.execute("SELECT relallvisible FROM pg_class WHERE relname = 'plain'").fetchall() == [(1,)]


# From 17 on, CREATE INDEX has the restricted search_path, too, so such an index comes from older data only.
@pytest.mark.skipif(int(binaries().parent.name) >= 17, reason="Postgres 17 does not create the failing index")
def test_a_table_that_cannot_be_rewritten_fails_the_image_with_the_reason(cluster: Cluster, tmp_path: Path) -> None:
    with watched(cluster) as (session, job, find_changed):
        session.execute("CREATE SCHEMA helpers")
        session.execute("CREATE FUNCTION helpers.inner_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'")
        session.execute("SET search_path = public, helpers")
        session.execute(
            "CREATE FUNCTION of(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN inner_one($1); END'"
        )
        session.execute("CREATE INDEX ON indexed (of(id))")
        session.execute("UPDATE indexed SET id = 2")
        with pytest.raises(JobError, match=r"public\.indexed.*search_path") as caught:
            Vacuum(job, Rows(tmp_path)).run({"watched": 0}, {}, {"watched": find_changed().tables})
        assert caught.value.code == "cleaning_failed"


def test_an_image_that_keeps_residue_rewrites_nothing_and_says_so_first(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    rows.add("file_dropped", "one")
    assert residues.keep({"my_db": 1, "other": 2}, rows) == {
        "my_db": residues.Changed([], [], set()),
        "other": residues.Changed([], [], set()),
    }
    assert [row.code for row in rows] == ["residue_kept", "file_dropped"]
