"""The distinction of Postgres's own functions from the data's, on a real cluster."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from draupnir_helper.jobs import catalogs, finalise
from draupnir_helper.jobs.catalogs import Function, Verdict
from draupnir_helper.jobs.reports import JobError
from tests.postgres import Cluster, binaries

SQL = Path(finalise.__file__).with_name("sql")
MAJOR = int(binaries().parent.name)


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> Iterator[str]:
    """Provide a separate database, and an open template0 as in the job."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE judged")
        connection.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
        yield "judged"
        connection.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS false")
        connection.execute("DROP DATABASE judged")


def listed(cluster: Cluster, database: str, *names: str, **variables: str) -> list[str]:
    options = [part for name, value in variables.items() for part in ("-v", f"{name}={value}")]
    options += [part for name in names for part in ("-f", str(SQL / name))]
    command = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", cluster.dsn(database), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PGOPTIONS": "-c search_path="})
    return done.stdout.removesuffix("\n").split("\n")


def judged(cluster: Cluster, database: str) -> tuple[Verdict, dict[str, Function]]:
    *lines, extensions = listed(cluster, database, "languages.sql", "functions.sql")
    made = listed(cluster, "template0", "extensions.sql", "languages.sql", "functions.sql", extensions=extensions)[:-1]
    functions = catalogs.read(lines)
    return catalogs.judge(MAJOR, functions, catalogs.read(made)), {each.oid: each for each in functions}


def test_a_new_cluster_has_only_functions_of_postgres(cluster: Cluster, database: str) -> None:
    verdict, _ = judged(cluster, database)
    assert (verdict.kept, verdict.closed) == ([], [])


def test_the_functions_that_initdb_revokes_from_public_are_known(cluster: Cluster, database: str) -> None:
    """The files agree with pg_init_privs, which is unchanged here."""
    query = """
        SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_init_privs ON objoid = p.oid
         WHERE classoid = 'pg_proc'::regclass AND privtype = 'i'
           AND NOT EXISTS (SELECT FROM aclexplode(initprivs) WHERE grantee = 0)"""
    with psycopg.connect(cluster.dsn(database)) as connection:
        wanted = {row[0] for row in connection.execute(query)}
        found = connection.execute(
            "SELECT to_regprocedure(each)::text FROM unnest(%s::text[]) AS each", [list(catalogs.restricted(MAJOR))]
        )
        assert {row[0] for row in found} == wanted


def test_extensions_keep_what_their_scripts_make_and_lose_what_was_added_to_them(
    cluster: Cluster, database: str
) -> None:
    with psycopg.connect(cluster.dsn(database), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA elsewhere; CREATE EXTENSION hstore SCHEMA elsewhere VERSION '1.4'")
        connection.execute("CREATE EXTENSION earthdistance CASCADE; CREATE EXTENSION dblink")
        connection.execute("GRANT EXECUTE ON FUNCTION dblink_connect_u(text) TO PUBLIC")
        for name in ("added", "not_added"):
            connection.execute(f"CREATE FUNCTION {name}(text) RETURNS text LANGUAGE internal AS 'textin'")
        connection.execute("ALTER EXTENSION hstore ADD FUNCTION added(text)")
        connection.execute("CREATE FUNCTION definer() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'")
    verdict, functions = judged(cluster, database)
    closed = {functions[oid].name for oid in verdict.closed}
    assert closed == {"added", "not_added", "dblink_connect_u"}


def test_constructors_of_types_and_aliases_of_public_functions_stay_callable(cluster: Cluster, database: str) -> None:
    """Applications create indexes with an immutable copy of unaccent()."""
    with psycopg.connect(cluster.dsn(database), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION unaccent")
        connection.execute("CREATE TYPE span AS RANGE (subtype = float8)")
        connection.execute("CREATE AGGREGATE product(int) (SFUNC = int4mul, STYPE = int, INITCOND = '1')")
        copies = {
            "copied_unaccent(regdictionary, text) RETURNS text": "C STRICT AS '$libdir/unaccent', 'unaccent_dict'",
            "copied_md5(text) RETURNS text": "internal STRICT AS 'md5_text'",
            # These are not harmless copies: one of a restricted function, and one with another result type.
            "copied_read(text) RETURNS text": "internal STRICT AS 'pg_read_file_all'",
            "copied_address(bigint) RETURNS text": "internal STRICT AS 'int8up'",
        }
        for signature, code in copies.items():
            connection.execute(f"CREATE FUNCTION {signature} LANGUAGE {code}".encode())
    verdict, functions = judged(cluster, database)
    assert {functions[oid].name for oid in verdict.kept} == {"copied_unaccent", "copied_md5"}
    closed = {functions[oid].name for oid in verdict.closed}
    assert {"copied_read", "copied_address"} <= closed
    assert not closed & {"product", "span", "copied_unaccent", "copied_md5"}


def test_a_replaced_function_of_postgres_is_detected(cluster: Cluster, database: str) -> None:
    lines = listed(cluster, database, "languages.sql", "functions.sql")[:-1]
    functions = catalogs.read(lines)
    (found,) = (each for each in functions if each.name == "md5" and each.arguments == "text")
    for changed in (
        found._replace(source="pg_read_binary_file_all"),
        found._replace(language_oid="14", source="SELECT 1"),
        found._replace(definer="t"),
    ):
        with pytest.raises(JobError, match=r"pg_catalog\.md5"):
            catalogs.judge(MAJOR, [changed], [])


def test_a_function_with_another_owner_is_returned_to_the_superuser(cluster: Cluster, database: str) -> None:
    functions = catalogs.read(listed(cluster, database, "languages.sql", "functions.sql")[:-1])
    (found,) = (each for each in functions if each.name == "md5" and each.arguments == "text")
    verdict = catalogs.judge(MAJOR, [found._replace(bootstrap_owned="f")], [])
    assert verdict == Verdict([found.oid], [], [], [])


def test_handing_over_reads_no_view_of_the_data(cluster: Cluster, database: str) -> None:
    """The data may have replaced a view by a query that our superuser session would run."""
    names = ("roles.sql", "ownership.sql", "superuser_runs.sql", "forget.sql", "close.sql")
    text = "".join((SQL / name).read_text() for name in names)
    read = set(re.findall(r"\b(?:FROM|JOIN|USING|UPDATE)\s+(pg_\w+)", text))
    with psycopg.connect(cluster.dsn(database)) as connection:
        views = connection.execute(
            "SELECT relname FROM pg_class WHERE relname = ANY(%s) AND relkind = 'v'", [list(read)]
        )
        assert views.fetchall() == []
    assert len(read) > 30


def test_another_version_of_a_function_that_our_sql_calls_is_noticed(cluster: Cluster, database: str) -> None:
    planted = "CREATE FUNCTION pg_catalog.format(text, name, text) RETURNS text LANGUAGE sql AS $$ SELECT 'SELECT 1' $$"
    with psycopg.connect(cluster.dsn(database), autocommit=True) as connection:
        catalogs.refuse_other_versions(MAJOR, catalogs.read(listed(cluster, database, "functions.sql")[:-1]))
        connection.execute(planted)
        with pytest.raises(JobError, match=r"pg_catalog\.format"):
            catalogs.refuse_other_versions(MAJOR, catalogs.read(listed(cluster, database, "functions.sql")[:-1]))
        connection.execute("DROP FUNCTION pg_catalog.format(text, name, text)")
