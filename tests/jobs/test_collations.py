"""Indexes of another collation version are rebuilt, on a real cluster, so that they agree with their tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from draupnir_helper.jobs import clusters
from draupnir_helper.jobs.collations import LISTING, Collations
from draupnir_helper.jobs.reports import Reporter
from draupnir_helper.jobs.rows import Row
from tests.postgres import Cluster, binaries

# 2,000 words, whose order under C differs from their order in a language.
WORDS = """SELECT CASE i % 3 WHEN 0 THEN upper(w) WHEN 1 THEN initcap(w) ELSE w END
             FROM (SELECT i, md5(i::text) AS w FROM generate_series(1, 2000) i) AS words"""
CONTENT = f"""
CREATE TABLE words (word text PRIMARY KEY, n int);
INSERT INTO words SELECT word, row_number() OVER () FROM ({WORDS}) AS w(word);
CREATE INDEX other_number ON words (n);
CREATE INDEX other_bytes ON words (word COLLATE "C");
CREATE INDEX by_expression ON words ((lower(word)));
CREATE INDEX by_comparison ON words ((word < 'm'));
CREATE INDEX by_predicate ON words (n) WHERE word > 'm';
CREATE INDEX by_array ON words USING gin ((ARRAY[word]));
CREATE TYPE pair AS (a int, word text);
CREATE DOMAIN pair_domain AS pair;
CREATE TABLE pairs (p pair_domain, PRIMARY KEY (p));
CREATE TYPE span AS RANGE (subtype = text);
CREATE TABLE spans (s span, EXCLUDE USING gist (s WITH &&));
CREATE TABLE parts (word text PRIMARY KEY, CHECK (word <> '')) PARTITION BY RANGE (word);
CREATE TABLE part PARTITION OF parts (CONSTRAINT low CHECK (word < 'zz')) FOR VALUES FROM ('a') TO ('zz');
"""
DEPENDENT = {"words_pkey", "by_expression", "by_comparison", "by_predicate", "by_array"}
DEPENDENT |= {"pairs_pkey", "spans_s_excl", "part_pkey"}
# Alpine leaves a cluster like this: another order, and no version.
_LOCALE = "daticulocale" if int(binaries().parent.name) < 17 else "datlocale"
FLIP = f"""UPDATE pg_database SET datlocprovider = 'i', {_LOCALE} = 'en-US', datcollversion = NULL
           WHERE datname = current_database()"""


@pytest.fixture
def database(cluster: Cluster) -> Iterator[str]:
    """A database whose indexes are sorted by another collation than its own."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE collated TEMPLATE template0")
        with psycopg.connect(cluster.dsn("collated"), autocommit=True) as inside:
            inside.execute(CONTENT)
            inside.execute(FLIP)
        yield "collated"
        connection.execute("DROP DATABASE collated")


def rebuild(job: clusters.Cluster, database: str, directory: Path) -> tuple[Collations, Reporter]:
    reporter = Reporter(directory)
    collations = Collations(job, reporter)
    collations.rebuild({database: job.run_files(database, LISTING)})
    return collations, reporter


def files(connection: psycopg.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT relname, relfilenode FROM pg_class WHERE relkind = 'i'").fetchall())


def misses(connection: psycopg.Connection) -> int:
    """The words that an index does not find."""
    connection.execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")
    connection.execute("SET enable_material = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off")
    query = """SELECT count(*) FROM (SELECT word FROM words OFFSET 0) AS w
                WHERE NOT EXISTS (SELECT FROM words i WHERE i.word = w.word OFFSET 0)"""
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_every_dependent_index_and_no_other_is_rebuilt(
    cluster: Cluster, job: clusters.Cluster, database: str, tmp_path: Path
) -> None:
    with psycopg.connect(cluster.dsn(database), autocommit=True) as connection:
        assert misses(connection) > 0
        before = files(connection)
        _, reporter = rebuild(job, database, tmp_path)
        after = files(connection)
        assert {name for name in before if before[name] != after[name]} == DEPENDENT
        assert misses(connection) == 0
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO words SELECT * FROM words")
        (fresh,) = connection.execute(
            "SELECT datcollversion = pg_database_collation_actual_version(oid) FROM pg_database"
            " WHERE datname = current_database()"
        ).fetchone() or [None]
        assert fresh
        assert not connection.execute(
            "SELECT FROM pg_collation"
            " WHERE oid <> 100 AND collversion IS DISTINCT FROM pg_collation_actual_version(oid)"
        ).fetchall()
    rows = list(reporter.rows)
    assert [(row.code, row.object) for row in rows] == [
        ("collation_refreshed", ""),
        ("collation_order", "public.part, constraint low"),
        ("collation_order", "public.parts"),
    ]
    assert f"{len(DEPENDENT)} indexes were rebuilt" in rows[0].detail
    assert "(en-US): no version to " in rows[0].detail
    assert not any(job.run_files(database, LISTING)), "a second survey finds nothing"


def test_a_collation_of_an_old_version_is_rebuilt_and_refreshed(
    cluster: Cluster, job: clusters.Cluster, database: str, tmp_path: Path
) -> None:
    with psycopg.connect(cluster.dsn(database), autocommit=True) as connection:
        rebuild(job, database, tmp_path)
        connection.execute('CREATE INDEX german ON words (word COLLATE "de-x-icu")')
        connection.execute("UPDATE pg_collation SET collversion = '1.1' WHERE collname IN ('de-x-icu', 'fr-x-icu')")
        before = files(connection)
        _, reporter = rebuild(job, database, tmp_path)
        assert {name for name, file in files(connection).items() if before[name] != file} == {"german"}
    (row,) = reporter.rows
    assert ("de-x-icu: 1.1 to" in row.detail, "fr-x-icu" in row.detail) == (True, False)


def test_an_index_with_duplicates_is_invalid_until_the_script_removes_them(
    cluster: Cluster, job: clusters.Cluster, database: str, tmp_path: Path
) -> None:
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'words_pkey'::regclass"
    with psycopg.connect(cluster.dsn(database), autocommit=True) as connection:
        for (word,) in connection.execute("SELECT word FROM words").fetchall():
            # The index does not find some words, and accepts them again.
            connection.execute("INSERT INTO words VALUES (%s, 0) ON CONFLICT DO NOTHING", [word])
        (doubled,) = connection.execute("SELECT count(*) FROM words WHERE n = 0").fetchone() or [0]
        assert doubled > 0
        collations, reporter = rebuild(job, database, tmp_path)
        assert connection.execute(valid).fetchone() == (False,)
        assert [row for row in reporter.rows if row.code == "index_invalid"] == [invalid_row(database)]
        connection.execute("SET enable_seqscan = off")
        assert connection.execute("SELECT count(*) FROM words WHERE word >= ''").fetchone() == (2000 + doubled,)
        collations.retry([database])
        assert connection.execute(valid).fetchone() == (False,)
        connection.execute("DELETE FROM words WHERE n = 0")
        collations.retry([database])
        assert connection.execute(valid).fetchone() == (True,)
    assert not [row for row in reporter.rows if row.code == "index_invalid"]


def invalid_row(database: str) -> Row:
    return Row(
        "index_invalid",
        "The index could not be rebuilt with the new version of its collation: the table has duplicates, SQLSTATE 23505"
        " (unique_violation). Queries do not use it.",
        database,
        "public.words, index public.words_pkey",
        "Delete the duplicates at the source, where the same index accepted them, or in the script.",
    )
