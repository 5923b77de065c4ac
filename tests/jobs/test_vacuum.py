"""VACUUM and ANALYZE reach every table whatever functions of the data do, on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from draupnir_helper.jobs import clusters
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.vacuum import Vacuum
from tests.postgres import Cluster, binaries

CONTENT = """
CREATE TABLE plain AS SELECT i AS n, i % 7 AS seven FROM generate_series(1, 1000) i;
DELETE FROM plain WHERE n > 900;
CREATE TABLE "two
lines :x \\" AS SELECT i FROM generate_series(1, 10) i;
CREATE MATERIALIZED VIEW matter AS SELECT * FROM plain;
CREATE FUNCTION unqualified(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION folded(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(unqualified($1))';
CREATE TABLE names AS SELECT 'Name ' || i % 9 AS name, i % 3 AS third FROM generate_series(1, 1000) i;
CREATE INDEX by_folded ON names (folded(name));
CREATE INDEX healthy ON names (upper(name));
CREATE FUNCTION wrong(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
CREATE TABLE partial AS SELECT 'Name ' || i % 9 AS name FROM generate_series(1, 1000) i;
CREATE INDEX by_wrong ON partial (name) WHERE wrong(name) <> '';
CREATE OR REPLACE FUNCTION wrong(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
  'BEGIN RAISE EXCEPTION ''wrong''; END';

CREATE TABLE parts (n int, seven int, text text) PARTITION BY RANGE (n);
CREATE STATISTICS together ON n, seven FROM parts;
CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (500);
CREATE TABLE part2 PARTITION OF parts FOR VALUES FROM (500) TO (2000) PARTITION BY RANGE (n);
CREATE TABLE part3 PARTITION OF part2 FOR VALUES FROM (500) TO (2000);
INSERT INTO parts SELECT i, i % 7, 'x' FROM generate_series(1, 1000) i;
CREATE TABLE never (LIKE parts) PARTITION BY RANGE (n);
CREATE TABLE never1 PARTITION OF never FOR VALUES FROM (0) TO (2000);
INSERT INTO never SELECT * FROM parts;
ANALYZE parts;
CREATE EXTENSION postgres_fdw;
CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nonexistent');
CREATE TABLE mixed (n int, seven int) PARTITION BY RANGE (n);
CREATE TABLE here PARTITION OF mixed FOR VALUES FROM (0) TO (2000);
INSERT INTO mixed SELECT n, seven FROM parts;
ANALYZE mixed;
CREATE FOREIGN TABLE there PARTITION OF mixed FOR VALUES FROM (2000) TO (3000) SERVER away;
CREATE TABLE parent (n int);
CREATE TABLE child () INHERITS (parent);
CREATE FOREIGN TABLE far (n int) INHERITS (parent) SERVER away;
INSERT INTO parent VALUES (1), (2);
INSERT INTO child SELECT i FROM generate_series(1, 100) i;
DELETE FROM pg_statistic;
"""


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> Iterator[str]:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE vacuumed TEMPLATE template0")
        with psycopg.connect(cluster.dsn("vacuumed"), autocommit=True) as inside:
            for statement in CONTENT.split(";\n"):
                inside.execute(statement)
        yield "vacuumed"
        connection.execute("DROP DATABASE vacuumed")


def analysed(connection: psycopg.Connection, *, inherited: bool) -> dict[str, int]:
    """The relations of public with statistics, and how many columns have them."""
    query = """SELECT relname, count(*) FROM pg_statistic JOIN pg_class c ON c.oid = starelid
                WHERE stainherit = %s AND relnamespace = 'public'::regnamespace GROUP BY relname"""
    return dict(connection.execute(query, [inherited]).fetchall())


# From 17 on, CREATE INDEX has the restricted search_path, too, so such an index comes from older data only.
@pytest.mark.skipif(int(binaries().parent.name) >= 17, reason="Postgres 17 does not create the failing index")
@pytest.mark.parametrize("size_bytes", [1, 1 << 30])
def test_all_tables_are_analysed_except_reported_ones(
    cluster: Cluster,
    job: clusters.Cluster,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size_bytes: int,
) -> None:
    """In one session or several."""
    monkeypatch.setattr("draupnir_helper.jobs.vacuum.size_bytes", lambda _: size_bytes)
    rows = Rows(tmp_path)
    with psycopg.connect(cluster.dsn(database), autocommit=True) as connection:
        named = connection.execute("SELECT ARRAY['parts'::regclass::oid, 'mixed'::regclass::oid, 1]::text").fetchone()
        assert named is not None
        inherits = connection.execute("SELECT * FROM pg_inherits ORDER BY 1, 2").fetchall()
        Vacuum(job, rows).run({database: 5}, {5: named[0]}, {database: ()})
        assert analysed(connection, inherited=False) == {
            **dict.fromkeys(("partial", "parent", "child", "healthy", "two\nlines :x \\"), 1),
            **dict.fromkeys(("names", "plain", "matter", "here"), 2),
            **dict.fromkeys(("part1", "part3", "never1"), 3),
        }
        assert analysed(connection, inherited=True) == {"parts": 3, "part2": 3, "mixed": 2, "parent": 1}
        assert connection.execute("SELECT * FROM pg_inherits ORDER BY 1, 2").fetchall() == inherits
        assert connection.execute("SELECT count(*) FROM pg_statistic_ext_data").fetchone() == (1,)
        assert connection.execute("SELECT FROM pg_index WHERE NOT indislive").fetchall() == []
        # VACUUM skips a page that a background process is writing.
        dead = "SELECT relallvisible > 0, reltuples FROM pg_class WHERE relname = 'plain'"
        assert connection.execute(dead).fetchone() == (True, 900)
        connection.execute("DELETE FROM pg_statistic")
    assert sorted((row.object, row.detail.partition(". ")[2]) for row in rows) == [
        ("public.mixed", "The table was analysed without its foreign tables: public.there."),
        ("public.names", "The table was analysed without the expressions of public.by_folded."),
        ("public.parent", "The table was analysed without its foreign tables: public.far."),
        ("public.partial", "The table was analysed without the expressions of public.by_wrong."),
    ]
    assert {row.code for row in rows} == {"analyze_failed"}
    assert "SQLSTATE 42883 (undefined_function)" in next(row.detail for row in rows if row.object == "public.names")
