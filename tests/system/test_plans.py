"""An instance plans and answers queries as its source does, whatever collations and indexes the source has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

from tests.system.backups import BINARIES, Source
from tests.system.service import Service, run

# Each table has at most 30,000 rows, which ANALYZE reads whole, so that the statistics do not depend on a sample.
CONTENT = """
CREATE TABLE customers (name text PRIMARY KEY, city text COLLATE "de-x-icu", country char(2), joined date,
                        note text, tags text[]);
INSERT INTO customers
  SELECT (ARRAY['Ärger','Zimt','apfel','Öl','ohne','Straße','strasse','Über','uhr','Mutter'])[i % 10 + 1]
           || ' ' || md5(i::text),
         (ARRAY['Köln','Kiel','koblenz','Ulm','Überlingen'])[i % 5 + 1], CASE WHEN i % 50 = 0 THEN 'AT' ELSE 'DE' END,
         '2020-01-01'::date + i % 900, repeat('x', i % 90), ARRAY['t' || i % 4, 'u' || i % 40]
    FROM generate_series(1, 20000) i;
CREATE INDEX by_city ON customers (city, joined);
CREATE INDEX by_lower_name ON customers (lower(name));
CREATE INDEX by_pattern ON customers (name text_pattern_ops);
CREATE INDEX abroad ON customers (joined) WHERE country <> 'DE';
CREATE INDEX by_tags ON customers USING gin (tags);
CREATE INDEX recent ON customers USING brin (joined);
ALTER TABLE customers ALTER COLUMN city SET STATISTICS 500;
ALTER INDEX by_lower_name ALTER COLUMN 1 SET STATISTICS 300;
CREATE TABLE orders (id int PRIMARY KEY, customer text REFERENCES customers, region int, district int, total numeric);
INSERT INTO orders SELECT i, name, i % 100, i % 100 / 10, i % 977
  FROM (SELECT row_number() OVER (ORDER BY name COLLATE "C") AS i, name FROM customers) AS c;
CREATE INDEX ON orders (customer);
CREATE INDEX ON orders (region, district);
CREATE STATISTICS districts (ndistinct, dependencies, mcv) ON region, district FROM orders;
CREATE STATISTICS halves ON (total / 2) FROM orders;
CREATE TABLE events (at date, kind int, sub_kind int, text text) PARTITION BY RANGE (at);
CREATE STATISTICS kinds ON kind, sub_kind FROM events;
CREATE TABLE events_2020 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE events_2021 PARTITION OF events FOR VALUES FROM ('2021-01-01') TO ('2022-01-01') PARTITION BY LIST (kind);
CREATE TABLE events_2021_0 PARTITION OF events_2021 FOR VALUES IN (0, 1, 2);
CREATE TABLE events_2021_1 PARTITION OF events_2021 DEFAULT;
CREATE INDEX ON events (kind, sub_kind);
INSERT INTO events
  SELECT '2020-01-01'::date + i % 700, i % 200, i % 200 / 20, 'e' || i % 31 FROM generate_series(1, 24000) i;
CREATE TABLE parent (n int, at date);
CREATE TABLE child () INHERITS (parent);
INSERT INTO parent SELECT i, '2020-01-01' FROM generate_series(1, 3000) i;
INSERT INTO child SELECT i % 7, '2021-01-01' FROM generate_series(1, 9000) i;
CREATE MATERIALIZED VIEW per_city AS SELECT city, country, count(*) AS n FROM customers GROUP BY city, country;
VACUUM (ANALYZE);
ANALYZE events;
"""
QUERIES = (
    "SELECT count(*), min(name), max(name) FROM customers WHERE name BETWEEN 'o' AND 'v'",
    "SELECT name FROM customers ORDER BY name LIMIT 20",
    "SELECT name FROM customers ORDER BY name DESC OFFSET 500 LIMIT 3",
    "SELECT city, count(*) FROM customers WHERE city >= 'L' GROUP BY city ORDER BY city",
    "SELECT name, joined FROM customers WHERE city = 'Ulm' AND joined < '2020-02-01' ORDER BY joined, name LIMIT 5",
    "SELECT note FROM customers WHERE lower(name) = lower('Öl ' || md5('3'))",
    "SELECT count(*) FROM customers WHERE lower(name) LIKE 'm%'",
    "SELECT count(*) FROM customers WHERE name LIKE 'Stra%'",
    "SELECT count(*) FROM customers WHERE country <> 'DE' AND joined > '2022-01-01'",
    "SELECT count(*) FROM customers WHERE tags @> ARRAY['t1', 'u5']",
    "SELECT region, district, sum(total) FROM orders WHERE region = 42 AND district = 4 GROUP BY 1, 2",
    "SELECT count(*) FROM orders a JOIN orders b ON a.total = b.total WHERE a.region = 42 AND a.district = 4",
    "SELECT count(*) FROM orders a JOIN orders b USING (region) WHERE a.total / 2 < 1 AND b.district = 3",
    "SELECT c.city, sum(o.total) FROM customers c JOIN orders o ON o.customer = c.name WHERE c.country = 'AT'"
    " GROUP BY c.city ORDER BY c.city",
    "SELECT max(id) FROM orders WHERE customer IN (SELECT name FROM customers WHERE city = 'Kiel' AND name < 'b')",
    "SELECT count(*) FROM events WHERE kind = 77 AND sub_kind = 3",
    "SELECT count(*) FROM events e JOIN events f ON e.at = f.at AND f.kind = 9 WHERE e.kind = 9 AND e.sub_kind = 0",
    "SELECT kind, count(*) FROM events WHERE at >= '2021-06-01' AND kind < 4 GROUP BY kind ORDER BY kind",
    "SELECT count(*) FROM parent p JOIN parent q USING (n) WHERE p.n = 3",
    "SELECT p.city, c.joined, count(*) FROM per_city p JOIN customers c USING (city) WHERE p.country = 'AT'"
    " AND c.joined = '2020-03-04' GROUP BY 1, 2 ORDER BY 1, 2",
)
STATISTICS = """
SELECT schemaname, tablename, attname, inherited, n_distinct, null_frac, most_common_vals, histogram_bounds
  FROM pg_stats WHERE schemaname = 'public' ORDER BY 1, 2, 3, 4"""
EXTENDED = """
SELECT tablename, statistics_name, inherited, n_distinct, dependencies, most_common_vals FROM pg_stats_ext
 ORDER BY 1, 2, 3"""
TARGETS = """
SELECT attrelid::regclass, attname, attstattarget FROM pg_attribute WHERE attstattarget > 0 ORDER BY 1, 2"""

OLD_VERSIONS = """
UPDATE pg_database SET datcollversion = '2.36' WHERE datname IN ('template1', 'postgres', 'my_db');
UPDATE pg_collation SET collversion = '1.0' WHERE collname = 'de-x-icu';
"""
WORDS = """
SELECT CASE i % 2 WHEN 0 THEN upper(w) ELSE w END AS key
  FROM (SELECT i, md5(i::text) AS w FROM generate_series(1, 2000) i) AS words"""
# Alpine leaves a cluster like this: sorted as C, under a name that sorts differently here, with no version.
ALPINE = f"""
CREATE DATABASE alpine TEMPLATE template0 LOCALE 'C';
\\c alpine
CREATE TABLE keys AS {WORDS};
ALTER TABLE keys ADD PRIMARY KEY (key);
CREATE TABLE doubled AS TABLE keys;
ALTER TABLE doubled ADD PRIMARY KEY (key);
CREATE TABLE ranges (key text CHECK (key > '0')) PARTITION BY RANGE (key);
UPDATE pg_database SET datcollate = 'en_US.utf8', datctype = 'en_US.utf8', datcollversion = NULL
 WHERE datname = 'alpine';
\\c alpine
DO $$ DECLARE each text; BEGIN
  FOR each IN SELECT key FROM keys LOOP
    BEGIN INSERT INTO doubled VALUES (each); EXCEPTION WHEN unique_violation THEN END;
  END LOOP;
END $$;
"""
# Only a function whose search_path was reset later, or an older Postgres, makes such an index.
NAMES = """
CREATE DATABASE names TEMPLATE template0 LOCALE 'C';
\\c names
CREATE EXTENSION unaccent;
CREATE FUNCTION f_unaccent(text) RETURNS text LANGUAGE sql IMMUTABLE SET search_path = public
  AS $$ SELECT unaccent('unaccent', $1) $$;
CREATE TABLE people AS SELECT 'Name ' || i % 9 AS name, i FROM generate_series(1, 1000) i;
CREATE INDEX by_unaccented ON people (f_unaccent(name));
ALTER FUNCTION f_unaccent(text) RESET search_path;
CREATE TABLE others AS SELECT i FROM generate_series(1, 1000) i;
DELETE FROM pg_statistic;
"""


@dataclass
class Copied:
    """The answers of the source, by query, and an instance of it with the report of its image."""

    answers: dict[str, str]
    instance: int
    rows: list[dict[str, str]]


@pytest.fixture(scope="module")
def copied(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copied]:
    source = Source.empty(tmp_path_factory.mktemp("planned"), "--locale=de_DE.UTF-8")
    source.start()
    source.sql("CREATE DATABASE my_db", "postgres")
    source.script(CONTENT)
    asked = [*QUERIES, *map(explained, QUERIES), STATISTICS, EXTENDED, TARGETS]
    answers = dict(zip(asked, in_parts(asked_of_source(source, in_one(asked))), strict=True))
    source.script(ALPINE, "postgres")
    source.script(NAMES, "postgres")
    source.script(OLD_VERSIONS)
    source.stop()
    image = service.make_image(source.tarball("planned.tar"), "SELECT 1;")
    rows = service.ask("GET", f"/images/{image}/report").json()["data"]["attributes"]["rows"]
    instance = int(service.create_instance(image)["id"])
    # From now on its processes are part of the world.
    service.answer(instance, "SELECT 1")
    yield Copied(answers, instance, rows)
    service.destroy_image(image)


def explained(query: str) -> str:
    return f"EXPLAIN (COSTS OFF) {query}"


def in_one(queries: Iterable[str]) -> str:
    """Return the queries as one text for psql, whose answer in_parts() splits."""
    return "; SELECT '--'; ".join(queries)


def in_parts(answer: str) -> list[str]:
    return re.split(r"^--$", answer, flags=re.MULTILINE)


def asked_of_source(source: Source, query: str) -> str:
    connection = ["-h", str(source.directory), "-p", "5999", "-d", "my_db", "-U", "postgres"]
    return run(BINARIES / "psql", "-XAtq", *connection, "-c", query).stdout.strip()


def test_twenty_queries_have_the_plans_and_answers_of_the_source(service: Service, copied: Copied) -> None:
    assert len(QUERIES) == 20
    found = dict(zip(copied.answers, in_parts(service.answer(copied.instance, in_one(copied.answers))), strict=True))
    assert {query for query, answer in found.items() if answer != copied.answers[query]} == set()


def test_no_collation_is_of_another_version_and_databases_can_be_created(service: Service, copied: Copied) -> None:
    stale = "SELECT count(*) FROM pg_collation WHERE oid <> 100 AND collversion <> pg_collation_actual_version(oid)"
    of_databases = """SELECT count(*) FROM pg_database WHERE datname <> 'template0'
                         AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)"""
    for database in ("my_db", "postgres", "template1", "alpine"):
        done = service.psql(copied.instance, stale, database)
        assert (done.stdout.strip(), done.stderr) == ("0", ""), database
    assert service.answer(copied.instance, of_databases) == "0"
    service.psql(copied.instance, "CREATE DATABASE created")
    service.psql(copied.instance, "DROP DATABASE created")
    refreshed = {row["database"]: row["detail"] for row in copied.rows if row["code"] == "collation_refreshed"}
    assert set(refreshed) == {"my_db", "postgres", "template1", "alpine"}
    assert "(de_DE.UTF-8): 2.36 to" in refreshed["my_db"]
    assert "de-x-icu: 1.0 to" in refreshed["my_db"]
    assert "(en_US.utf8): no version to" in refreshed["alpine"]


def test_keys_of_another_order_are_found_and_protected_again(service: Service, copied: Copied) -> None:
    by_index = """SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
        SELECT count(*) FROM (SELECT key FROM keys OFFSET 0) AS k
         WHERE EXISTS (SELECT FROM keys i WHERE i.key = k.key OFFSET 0)"""
    assert service.answer(copied.instance, by_index, "alpine") == "2000"
    again = service.psql(copied.instance, "INSERT INTO keys SELECT key FROM keys LIMIT 1", "alpine", ok=False)
    assert "duplicate key" in again.stderr


def test_an_index_that_cannot_be_rebuilt_is_reported_and_gives_no_wrong_answer(
    service: Service, copied: Copied
) -> None:
    told = {(row["code"], row["object"]) for row in copied.rows if row["database"] == "alpine"}
    assert told == {
        ("collation_refreshed", ""),
        ("collation_order", "public.ranges"),
        ("collation_order", "public.ranges, constraint ranges_key_check"),
        ("index_invalid", "public.doubled, index public.doubled_pkey"),
    }
    count = "SET enable_seqscan = off; SELECT count(*) > 2000 FROM doubled WHERE key >= ''"
    assert service.answer(copied.instance, count, "alpine") == "t"
    unique = """DELETE FROM doubled a USING doubled b WHERE a.key = b.key AND a.ctid > b.ctid;
        REINDEX INDEX doubled_pkey; SELECT count(*) FROM doubled"""
    assert service.answer(copied.instance, unique, "alpine") == "2000"


def test_an_index_whose_function_fails_costs_only_its_own_statistics(service: Service, copied: Copied) -> None:
    statistics = "SELECT tablename, attname FROM pg_stats WHERE schemaname = 'public' ORDER BY 1, 2"
    assert service.answer(copied.instance, statistics, "names") == "others|i\npeople|i\npeople|name"
    (row,) = (row for row in copied.rows if row["database"] == "names")
    assert (row["code"], row["object"]) == ("analyze_failed", "public.people")
    assert "by_unaccented" in row["detail"]
    assert "search_path" in row["remedy"]


def test_jit_can_be_switched_on_and_changes_nothing(service: Service, copied: Copied) -> None:
    compiled = "SET jit = on; SET jit_above_cost = 0; SELECT sum(total + region) FROM orders"
    assert service.answer(copied.instance, compiled) == service.answer(copied.instance, compiled.split("; ")[2])
