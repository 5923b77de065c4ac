"""Sampled values that the script removes are searched for in all files; each hit is judged by what queries find."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import psycopg
import pytest

from draupnir_helper import postgres
from draupnir_helper.jobs import residues, surveys
from draupnir_helper.jobs.proofs import Proof
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.vacuum import Vacuum
from tests.finalising import job_on
from tests.postgres import Cluster

CONTENT = """
CREATE TABLE people (id int PRIMARY KEY, email text, extra jsonb, tags text[], card numeric, token uuid, photo bytea,
                     born date, kind text);
INSERT INTO people
  SELECT i, 'p' || i || '@corp.example', jsonb_build_object('phone', '+49 171 55' || i, 'kind', 'customer'),
         ARRAY['tag number ' || i], 4111111100000000 + i, md5(i::text)::uuid, decode(md5('photo' || i), 'hex'),
         '2000-01-01'::date + i, 'production'
    FROM generate_series(100, 600) i;
CREATE TABLE orders (id int PRIMARY KEY, who text, note text);
INSERT INTO orders SELECT i, 'p' || i || '@corp.example', 'note ' || i FROM generate_series(100, 600) i;
CREATE TABLE events (at date, who text) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
INSERT INTO events SELECT '2020-01-01'::date + i, 'visitor-' || i FROM generate_series(1, 300) i;
CREATE TABLE logs (line text);
INSERT INTO logs SELECT 'p' || i || '@corp.example signed in' FROM generate_series(100, 600) i;
CREATE TABLE documents (id int PRIMARY KEY, body text, raw text);
ALTER TABLE documents ALTER raw SET STORAGE EXTERNAL;
INSERT INTO documents
  SELECT i, (SELECT string_agg(md5((i * j)::text) || ' of the letter ', '') FROM generate_series(1, 200) j),
         repeat('raw text of letter ' || i || '. ', 300)
    FROM generate_series(1, 30) i;
CREATE TABLE letters (id int PRIMARY KEY, body text);
INSERT INTO letters
  SELECT i, repeat('Dear customer number ' || i || ', ', 100) || md5(i::text) FROM generate_series(1, 30) i;
CREATE TABLE visits (place text);
INSERT INTO visits SELECT 'Any Street ' || i || '0' FROM generate_series(100, 120) i;
CREATE TABLE homes (id int PRIMARY KEY, place text);
INSERT INTO homes SELECT i, 'Any Street ' || i FROM generate_series(100, 120) i;
CREATE TABLE accounts (iban text);
INSERT INTO accounts SELECT 'DE8937040044053201' || i FROM generate_series(1000, 3000) i;
"""

# ANALYZE of all tables would read the foreign one.
FOREIGN = """
CREATE EXTENSION file_fdw;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE TABLE readings (at int, sensor text) PARTITION BY LIST (at);
CREATE TABLE readings_1 PARTITION OF readings FOR VALUES IN (1);
CREATE FOREIGN TABLE readings_2 PARTITION OF readings FOR VALUES IN (2) SERVER files OPTIONS (filename '/nowhere');
INSERT INTO readings SELECT 1, 'sensor-' || i FROM generate_series(1000, 1100) i;
"""


class World:
    """A database with the content, and the job on it."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self._cluster = cluster
        self._directory = directory
        self.rows = Rows(directory)

    def prove(self, script: str, *, rewriting: bool = True, canaries: tuple[str, ...] = ()) -> str:
        """Run the script between the halves of the proof; return an empty text, or the code and text of the error."""
        with (
            psycopg.connect(self._cluster.dsn(), autocommit=True) as connection,
            job_on(self._cluster) as job,
        ):
            connection.execute("DROP DATABASE IF EXISTS proved WITH (FORCE)")
            connection.execute("CREATE DATABASE proved")
            with psycopg.connect(self._cluster.dsn("proved"), autocommit=True) as session:
                session.execute(CONTENT.encode())
                session.execute("VACUUM ANALYZE")
                session.execute(FOREIGN.encode())
                found = session.execute("SELECT oid::int FROM pg_database WHERE datname = 'proved'").fetchone()
                assert found is not None
                databases = {"proved": int(found[0])}
                parents = surveys.survey(job, databases).parents
                before = residues.survey(job, databases, residues.position(job))
                try:
                    proof = Proof(job, script, {"canaries": canaries, "keep_residue": False}, self.rows)
                    proof.sample(databases)
                    session.execute(script.encode())
                    changed = residues.find_changed(job, databases, before)
                    if rewriting:
                        tables = {name: each.tables for name, each in changed.items()}
                        Vacuum(job, self.rows).run(databases, parents, tables)
                        residues.rewrite_catalogs(job, changed)
                    proof.compare(databases, changed)
                    residues.position(job)
                    # After the stop the job deletes the log.
                    with mock.patch.object(postgres, "PGDATA", str(self._files(databases))):
                        proof.search(nullcontext)
                except JobError as error:
                    return f"{error.code}: {error.detail}"
        return ""

    def _files(self, databases: dict[str, int]) -> Path:
        directory = self._directory / "files"
        shutil.rmtree(directory, ignore_errors=True)
        for name in ("global", *(f"base/{oid}" for oid in databases.values())):
            shutil.copytree(self._cluster.data / name, directory / name)
        return directory

    def detail(self, code: str) -> str:
        return next(row.detail for row in self.rows if row.code == code)


@pytest.fixture
def world(cluster: Cluster, tmp_path: Path) -> Iterator[World]:
    yield World(cluster, tmp_path)
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS proved WITH (FORCE)")


def test_nothing_is_removed_by_an_empty_script(world: World) -> None:
    assert world.prove("SELECT 1") == ""
    assert "It removed 0 of them" in world.detail("originals_absent")


CHANGES = {
    "UPDATE accounts SET iban = 'none'": "proved.public.accounts.iban",
    "UPDATE people SET extra = '{}'": "proved.public.people.extra",
    "UPDATE people SET tags = '{}'": "proved.public.people.tags",
    "UPDATE people SET card = 0": "proved.public.people.card",
    "UPDATE people SET token = NULL": "proved.public.people.token",
    "UPDATE people SET photo = ''": "proved.public.people.photo",
    "UPDATE events SET who = 'somebody'": "proved.public.events_1.who",
    "UPDATE documents SET body = ''": "proved.public.documents",
    "UPDATE documents SET raw = ''": "proved.public.documents",
    "UPDATE letters SET body = ''": "proved.public.letters.body",
    "ALTER TABLE accounts DROP COLUMN iban": "proved.public.accounts.iban",
}


@pytest.mark.parametrize("change", CHANGES)
def test_removed_values_of_every_kind_are_found_without_a_rewrite(world: World, change: str) -> None:
    found = world.prove(change, rewriting=False)
    assert found.startswith("residue_found: ")
    assert CHANGES[change] in found
    assert "in database proved (base/" in found


def test_nothing_is_found_after_the_rewrite(world: World) -> None:
    assert world.prove("; ".join(CHANGES)) == ""
    assert "It removed 0 of them" not in world.detail("originals_absent")


def test_a_value_that_another_column_keeps_fails_and_both_columns_are_named(world: World) -> None:
    found = world.prove("UPDATE people SET email = 'user' || id")
    assert found.startswith("value_kept: ")
    assert "proved.public.people.email" in found
    assert "proved.public.orders.who" in found or "proved.public.logs.line" in found
    assert "corp.example" not in found


def test_a_declared_column_may_keep_values_whole_or_within_a_text(world: World) -> None:
    script = """
        -- draupnir: keeps proved.public.orders.who
        --draupnir:keeps "proved".PUBLIC."logs".line
        UPDATE people SET email = 'user' || id"""
    assert world.prove(script) == ""
    assert "removed elsewhere" in world.detail("values_kept")
    found = world.prove(script.replace('--draupnir:keeps "proved"', "-- "))
    assert "proved.public.logs.line" in found


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-- draupnir: keep proved.public.orders.who", "not a valid declaration"),
        ("-- draupnir: keeps public.orders.who", "not a valid declaration"),
        ("-- draupnir: keeps proved.public.orders.whom", "no table has this column"),
        ("-- draupnir: keeps other.public.orders.who", "no table has this column"),
    ],
)
def test_a_declaration_of_nothing_fails(world: World, line: str, why: str) -> None:
    found = world.prove(f"{line}\n")
    assert found.startswith("script_failed: ")
    assert why in found


@pytest.mark.parametrize(
    "script",
    [
        """DELETE FROM orders WHERE id < 400; TRUNCATE logs; UPDATE events SET at = at + 100;
           UPDATE readings_1 SET at = 1; UPDATE homes SET place = '';
           UPDATE people SET born = now(), kind = 'staging', extra = jsonb_set(extra, '{phone}', '"none"');
           CREATE TABLE new AS SELECT * FROM people; DROP TABLE people; ALTER TABLE new RENAME TO people""",
        """DROP TABLE orders, logs;
           ALTER TABLE people RENAME COLUMN email TO mail; UPDATE people SET kind = '';
           ALTER TABLE letters RENAME TO a""",
    ],
)
def test_deleted_rows_and_moved_columns_are_no_false_alarm(world: World, script: str) -> None:
    assert world.prove(script) == ""


def test_a_canary_is_found_before_other_values(world: World) -> None:
    found = world.prove("UPDATE people SET email = 'user' || id", canaries=("p101@corp.example",))
    assert found.startswith("canary_found: ")
    assert "public.orders in database proved" in found
    assert world.prove("SELECT 1", canaries=("nobody@corp.example",)) == ""
    assert "1 canaries" in world.detail("canaries_absent")


def test_an_attribute_that_a_type_lost_is_told(world: World) -> None:
    script = """
        CREATE TYPE address AS (street text, city text);
        CREATE DOMAIN home AS address;
        CREATE TABLE houses AS SELECT ROW('Any Street 7', 'Nowhere')::address AS at, ARRAY[]::home[] AS others;
        ALTER TYPE address DROP ATTRIBUTE street"""
    assert world.prove(script) == ""
    (row,) = (row for row in world.rows if row.code == "attributes_dropped")
    assert (row.database, row.object) == ("proved", "public.address")
