"""Tampering with Postgres's catalogs is found in the files, even if the server hides it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from draupnir_helper.jobs import catalogs, finalise, inspections
from draupnir_helper.jobs.reports import JobError
from tests.postgres import Cluster, binaries, throw_away

FUNCTIONS = Path(finalise.__file__).with_name("sql") / "functions.sql"
MAJOR = int(binaries().parent.name)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Provide a separate cluster, with the role that the job creates."""
    with throw_away() as cluster:
        run(
            cluster,
            "postgres",
            "CREATE ROLE draupnir LOGIN",
            "CREATE ROLE draupnir_superusers",
            "GRANT draupnir_superusers TO postgres",
            "ALTER DATABASE template0 ALLOW_CONNECTIONS true",
        )
        yield cluster


@pytest.fixture
def database(cluster: Cluster) -> Iterator[str]:
    """Provide a database that is dropped after the test."""
    run(cluster, "postgres", "CREATE DATABASE victim")
    yield "victim"
    run(cluster, "postgres", "DROP DATABASE victim", "VACUUM pg_database")


def run(cluster: Cluster, database: str, *statements: str) -> None:
    with psycopg.connect(cluster.dsn(database), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


Answers = dict[int, inspections.Judged]


def listed(cluster: Cluster, database: str) -> dict[int, catalogs.Function]:
    command = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", cluster.dsn(database), "-f", str(FUNCTIONS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PGOPTIONS": "-c search_path="})
    functions = catalogs.read(done.stdout.removesuffix("\n").split("\n")[:-1])
    return {int(each.oid): each for each in functions}


@pytest.fixture(scope="module")
def others(cluster: Cluster) -> Answers:
    """Provide the server's report about databases that no test changes."""
    return judged(cluster, "datname <> 'victim'")


def judged(cluster: Cluster, which: str = "datname = 'victim'") -> Answers:
    """Return the server's current report about the databases, by oid."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        databases = connection.execute(f"SELECT oid, datname FROM pg_database WHERE {which}".encode()).fetchall()
    return {oid: judged_in(listed(cluster, name)) for oid, name in databases}


def judged_in(functions: dict[int, catalogs.Function]) -> inspections.Judged:
    """Judge as if each extension had been created by its script."""
    verdict = catalogs.judge(MAJOR, functions.values(), functions.values())
    trusted = [*catalogs.oids(MAJOR), *verdict.made]
    return inspections.Judged(functions, frozenset(map(int, verdict.closed)), frozenset(map(int, trusted)))


def inspect(cluster: Cluster, said: dict[int, inspections.Judged]) -> None:
    """Inspect as after a stop: flush memory to the files, and remove dead rows."""
    vacuum = ("VACUUM pg_proc", "VACUUM pg_database", "VACUUM pg_authid", "VACUUM pg_auth_members", "CHECKPOINT")
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = 'victim'").fetchone() is not None:
            run(cluster, "victim", *vacuum)
        connection.execute("ALTER ROLE postgres NOLOGIN")
        for statement in vacuum:
            connection.execute(statement)
        try:
            inspections.inspect(cluster.data, MAJOR, said)
        finally:
            connection.execute("ALTER ROLE postgres LOGIN")


def test_a_new_cluster_is_as_initdb_makes_it(cluster: Cluster, others: Answers, database: str) -> None:
    inspect(cluster, others | judged(cluster))


def test_ordinary_databases_pass(cluster: Cluster, others: Answers, database: str) -> None:
    run(
        cluster,
        database,
        "CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION btree_gist; CREATE EXTENSION postgres_fdw",
        "CREATE FUNCTION mine(int) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT $1'",
        "ALTER FUNCTION mine OWNER TO draupnir",
        "ALTER FUNCTION textlike(text, text) LEAKPROOF",
        "CREATE CAST (varchar AS int) WITH INOUT AS IMPLICIT",
        "UPDATE pg_cast SET castcontext = 'i' WHERE castsource = 'int4'::regtype AND casttarget = 'bool'::regtype",
        "CREATE TYPE pair AS RANGE (subtype = int); CREATE DOMAIN positive AS int CHECK (value > 0)",
        "CREATE TABLE many AS SELECT generate_series(1, 10) AS id",
        # Production may compare a type of its own with one of Postgres, in an index of either.
        "CREATE TYPE alias; CREATE FUNCTION alias_in(cstring) RETURNS alias STRICT LANGUAGE internal AS 'int8in'",
        "CREATE FUNCTION alias_out(alias) RETURNS cstring STRICT LANGUAGE internal AS 'int8out'",
        "CREATE TYPE alias (INPUT = alias_in, OUTPUT = alias_out, LIKE = int8)",
        "CREATE FUNCTION alias_compared(int8, alias) RETURNS int STRICT IMMUTABLE LANGUAGE internal AS 'btint8cmp'",
        "ALTER OPERATOR FAMILY integer_ops USING btree ADD FUNCTION 1 alias_compared (int8, alias)",
        # These catalogs have other files than after initdb.
        "VACUUM FULL pg_proc",
        "VACUUM FULL pg_operator",
    )
    inspect(cluster, others | judged(cluster))


def test_a_superuser_that_may_sign_in_is_named(cluster: Cluster, database: str, others: Answers) -> None:
    said = others | judged(cluster)
    run(cluster, "postgres", "CHECKPOINT")
    with pytest.raises(JobError, match=r"pg_authid\.rolcanlogin"):
        inspections.inspect(cluster.data, MAJOR, said)


def test_usual_roles_of_production_pass(cluster: Cluster, database: str, others: Answers) -> None:
    made = (
        "CREATE ROLE app LOGIN CREATEDB",
        "CREATE ROLE ro",
        "GRANT ro TO app WITH ADMIN OPTION",
        "GRANT ro TO postgres",
    )
    granted = (
        "GRANT pg_monitor, pg_read_all_data, pg_write_all_data TO app",
        "GRANT app TO draupnir WITH ADMIN OPTION",
    )
    run(cluster, database, *made, *granted)
    try:
        inspect(cluster, others | judged(cluster))
    finally:
        run(cluster, database, "DROP ROLE app, ro")


LIE = "CREATE FUNCTION lie(oid) RETURNS name LANGUAGE plpgsql AS 'BEGIN RETURN ''1''; END'"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        # The function is among Postgres's own, so that no function of the data is called.
        ("UPDATE pg_operator SET oprcode = 'nameeq'::regproc WHERE oprcode = 'namene'::regproc", "pg_operator.oprcode"),
        ("UPDATE pg_cast SET castfunc = 'int4(float8)'::regprocedure WHERE castfunc = 'int4(int8)'::regprocedure",
         "pg_cast.castfunc"),
        ("UPDATE pg_amproc SET amproc = 'btint8cmp'::regproc WHERE amproc = 'btoidcmp'::regproc", "pg_amproc.amproc"),
        # The server would use this function to answer queries about types.
        (f"{LIE}; UPDATE pg_type SET typoutput = 'lie'::regproc WHERE typname = 'oid'", "pg_type.typoutput"),
        ("CREATE OPERATOR pg_catalog.<<<< (leftarg = int, rightarg = int, function = mine)", "pg_operator.oprcode"),
        ("CREATE CAST (text AS int) WITH FUNCTION kept(text)", "pg_cast.castfunc"),
        ("CREATE FUNCTION pg_catalog.later() RETURNS int LANGUAGE sql AS 'SELECT 1'", "did not list"),
        ("CREATE FUNCTION later() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'", "did not list"),
        ("CREATE FUNCTION later(text) RETURNS text LANGUAGE internal AS 'textin'", "did not list"),
        ("ALTER FUNCTION kept() OWNER TO postgres", "pg_proc.prosecdef"),
        ("UPDATE pg_proc SET prosecdef = true WHERE proname = 'pg_reload_conf'", "pg_proc.prosecdef"),
        ("CREATE FUNCTION awake() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
         "CREATE EVENT TRIGGER awake ON ddl_command_end EXECUTE FUNCTION awake()", "pg_event_trigger"),
        ("UPDATE pg_class SET relfilenode = 1 WHERE relname = 'pg_operator'", "cannot be read"),
    ],
)  # fmt: skip
def test_changes_that_the_server_hides_are_named(
    cluster: Cluster, others: Answers, database: str, change: str, named: str
) -> None:
    run(
        cluster,
        database,
        "CREATE FUNCTION mine(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        "ALTER FUNCTION mine OWNER TO draupnir",
        "CREATE FUNCTION kept() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
        "ALTER FUNCTION kept() OWNER TO draupnir",
        "CREATE FUNCTION kept(text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    said = others | judged(cluster)
    run(cluster, database, f"SET allow_system_table_mods = on; {change}")
    with pytest.raises(JobError) as raised:
        inspect(cluster, said)
    assert raised.value.code == "tampered_catalogs"
    assert named in raised.value.detail


@pytest.mark.parametrize(
    ("change", "back", "named"),
    [
        ("CREATE ROLE climber SUPERUSER", "DROP ROLE climber", "a role with powers"),
        ("CREATE ROLE climber BYPASSRLS", "DROP ROLE climber", "a role with powers"),
        ("CREATE ROLE climber REPLICATION", "DROP ROLE climber", "a role with powers"),
        (
            "UPDATE pg_authid SET rolcreaterole = true WHERE rolname = 'pg_monitor'",
            "UPDATE pg_authid SET rolcreaterole = false WHERE rolname = 'pg_monitor'",
            "pg_authid.rolcreaterole",
        ),
        (
            "UPDATE pg_authid SET rolcanlogin = true WHERE rolname = 'pg_signal_backend'",
            "UPDATE pg_authid SET rolcanlogin = false WHERE rolname = 'pg_signal_backend'",
            "pg_authid.rolcanlogin",
        ),
        (
            "UPDATE pg_authid SET rolname = 'innocent' WHERE rolname = 'pg_database_owner'",
            "UPDATE pg_authid SET rolname = 'pg_database_owner' WHERE rolname = 'innocent'",
            "pg_authid.rolname",
        ),
        ("GRANT postgres TO draupnir", "REVOKE postgres FROM draupnir", "pg_auth_members"),
        (
            "CREATE ROLE step; GRANT pg_read_server_files TO step; GRANT step TO draupnir",
            "DROP ROLE step",
            "pg_auth_members",
        ),
        ("GRANT pg_stat_scan_tables TO draupnir", "REVOKE pg_stat_scan_tables FROM draupnir", "pg_auth_members"),
        ("GRANT draupnir TO pg_signal_backend", "REVOKE draupnir FROM pg_signal_backend", "pg_auth_members"),
        (
            "GRANT draupnir_superusers TO draupnir",
            "REVOKE draupnir_superusers FROM draupnir",
            "pg_auth_members: draupnir_superusers",
        ),
        (
            "GRANT draupnir_superusers TO postgres WITH ADMIN OPTION",
            "REVOKE draupnir_superusers FROM postgres CASCADE; GRANT draupnir_superusers TO postgres",
            "pg_auth_members: draupnir_superusers",
        ),
        (
            "REVOKE draupnir_superusers FROM postgres",
            "GRANT draupnir_superusers TO postgres",
            "pg_auth_members: draupnir_superusers",
        ),
        (
            "ALTER ROLE draupnir_superusers RENAME TO others",
            "ALTER ROLE others RENAME TO draupnir_superusers",
            "pg_auth_members: draupnir_superusers",
        ),
    ],
)
def test_a_way_to_more_rights_is_named(cluster: Cluster, others: Answers, change: str, back: str, named: str) -> None:
    run(cluster, "postgres", change)
    with pytest.raises(JobError, match=named):
        inspect(cluster, others)
    run(cluster, "postgres", back)
    inspect(cluster, others)
