"""Roles of production in an instance: who may sign in, and that its databases answer as they did at the source."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.system import world
from tests.system.backups import MAJOR, Source
from tests.system.service import JSON, Service, credentials, run

ODD = 'It\'s "odd" Ümläut, $(x) = 7'
CLUSTER = f"""
CREATE ROLE shop LOGIN;
CREATE ROLE ro;
CREATE ROLE deployer LOGIN CREATEDB CREATEROLE;
GRANT ro TO deployer WITH ADMIN OPTION;
CREATE ROLE nologin;
CREATE ROLE "{ODD.replace('"', '""')}" LOGIN;
CREATE ROLE {"x" * 63} LOGIN;
CREATE ROLE bypass LOGIN BYPASSRLS REPLICATION;
ALTER ROLE shop IN DATABASE my_db SET search_path = shopdata, public;
REVOKE CONNECT ON DATABASE template1 FROM PUBLIC;
CREATE DATABASE archive;
CREATE DATABASE limited;
CREATE DATABASE triggered;
CREATE DATABASE dropped;
"""
SETTINGS = """
ALTER DATABASE archive SET default_transaction_read_only = on;
ALTER DATABASE archive SET default_transaction_isolation = 'serializable';
ALTER DATABASE archive SET role = 'app';
ALTER DATABASE limited CONNECTION LIMIT 0;
ALTER DATABASE my_db SET statement_timeout = '5s';
ALTER DATABASE my_db SET lock_timeout = '1s';
ALTER DATABASE my_db SET idle_in_transaction_session_timeout = '5s';
ALTER DATABASE my_db SET session_preload_libraries = 'anon';
ALTER DATABASE limited SET default_table_access_method = 'columnar';
ALTER DATABASE limited SET lc_messages = 'C';
UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'dropped';
"""
MY_DB = """
ALTER ROLE app NOSUPERUSER;
CREATE SCHEMA app AUTHORIZATION app;
CREATE SCHEMA shopdata AUTHORIZATION shop;
SET ROLE shop;
CREATE TABLE shopdata.wares (id int PRIMARY KEY);
SET ROLE app;
CREATE TABLE app.lines (id int PRIMARY KEY);
CREATE TABLE app.acct (tenant int, name text);
INSERT INTO app.acct SELECT i % 3, 'x' FROM generate_series(1, 300) i;
ALTER TABLE app.acct ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.acct FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON app.acct TO app USING (tenant = current_setting('app.tenant')::int);
CREATE TABLE app.m (id int PRIMARY KEY, parent int REFERENCES app.m);
RESET ROLE;
CREATE TABLE of_postgres (id int);
GRANT SELECT ON of_postgres TO ro;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO ro;
CREATE SCHEMA ext;
CREATE EXTENSION "uuid-ossp" SCHEMA ext;
CREATE EXTENSION pgcrypto SCHEMA ext;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ext FROM PUBLIC;
GRANT USAGE ON SCHEMA ext TO app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ext TO app;
SET ROLE app;
CREATE TABLE app.digested (name text);
INSERT INTO app.digested SELECT i::text FROM generate_series(1, 10) i;
CREATE INDEX ON app.digested (ext.digest(name, 'sha1'));
RESET ROLE;
"""
LOGIN_TRIGGER = """
CREATE FUNCTION only_some() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
  IF session_user NOT IN ('postgres', 'app') THEN RAISE 'not you'; END IF;
END $$;
CREATE EVENT TRIGGER only_some ON login EXECUTE FUNCTION only_some();
ALTER EVENT TRIGGER only_some ENABLE ALWAYS;
CREATE TABLE t (id int);
"""
# The script is to outlive the timeouts and to write where sessions are read-only by default.
SCRIPT = """
ALTER ROLE draupnir SET work_mem = '7MB';
\\c archive
CREATE TABLE old AS SELECT 1 AS id;
\\c my_db
SELECT pg_sleep(5.2);
DELETE FROM secret_tokens;
UPDATE users SET email = '', name = '';
"""


@pytest.fixture(scope="module")
def image(service: Service, source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An image of that cluster."""
    production = Source.copy_of(source, tmp_path_factory.mktemp("roles"))
    production.start()
    production.script(CLUSTER)
    production.script(MY_DB)
    production.sql("CREATE TABLE t (id int)", "limited")
    if MAJOR >= 17:
        production.script(LOGIN_TRIGGER, "triggered")
    production.script(SETTINGS, "postgres")
    production.stop()
    before = world.observe()
    image_id = service.make_image(production.tarball("roles.tar"), SCRIPT)
    yield image_id
    service.destroy_image(image_id)
    world.await_equal(before)


@pytest.fixture(scope="module")
def instance(service: Service, image: int) -> Iterator[int]:
    """One instance for tests that leave no trace in each other's way."""
    instance_id = int(service.create_instance(image)["id"])
    # Its processes are part of the world from now on.
    service.answer(instance_id, "SELECT 1")
    yield instance_id
    service.destroy_instance(instance_id)


def as_role(
    service: Service, instance_id: int, role: str, sql: str, database: str = "my_db", *, ok: bool = True
) -> str:
    """Return what psql prints for a role."""
    printed = service.client("--output", "json", "env", "--role", role, str(instance_id)).stdout
    environment = {**service.environment(instance_id), **json.loads(printed), "PGDATABASE": database}
    done = run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, ok=ok, env=environment)
    return (done.stdout + done.stderr).strip()


@pytest.mark.parametrize("role", ["app", "shop", "deployer", "bypass", ODD, "x" * 63])
def test_every_role_of_the_source_can_still_sign_in(service: Service, instance: int, role: str) -> None:
    assert as_role(service, instance, role, "SELECT session_user") == role


def test_a_role_without_login_is_refused_by_postgres(service: Service, instance: int) -> None:
    assert "not permitted to log in" in as_role(service, instance, "nologin", "SELECT 1", ok=False)


@pytest.mark.parametrize("role", ["postgres", "pg_monitor", "draupnir_superusers", "", "x" * 64, "a\nb"])
def test_superusers_and_reserved_names_are_refused(service: Service, image: int, instance: int, role: str) -> None:
    asked = service.ask("GET", f"/instances/{instance}", params={"role": role})
    assert (asked.status_code, asked.json()["errors"][0]["code"]) == (422, "role_refused")
    made = service.ask("POST", "/instances", {"image_id": image, "role": role})
    assert (made.status_code, made.json()["errors"][0]["code"]) == (422, "role_refused")


def test_the_certificate_of_one_role_is_not_another_s(service: Service, instance: int) -> None:
    answer: JSON = service.ask("GET", f"/instances/{instance}", params={"role": "app"}).json()["data"]
    assert answer["attributes"]["credentials"]["user"] == "app"
    with credentials(answer) as parameters:
        assert (
            "app"
            in run("psql", "-XAtc", "SELECT session_user", "-d", parameters.replace("user=draupnir", "user=app")).stdout
        )
        for other in ("draupnir", "shop", "postgres"):
            named = parameters.replace("user=draupnir", f"user={other}")
            refused = run("psql", "-XAtc", "SELECT 1", "-d", named, ok=False)
            assert refused.returncode != 0, other


def test_an_instance_can_be_created_for_a_role(service: Service, image: int) -> None:
    made = service.ask("POST", "/instances", {"image_id": image, "role": "app"}).json()["data"]
    assert made["attributes"]["credentials"]["user"] == "app"
    service.destroy_instance(int(made["id"]))


def test_the_superuser_cannot_sign_in_though_it_is_granted_every_role(service: Service, image: int) -> None:
    instance_id = int(service.create_instance(image)["id"])
    for role in ("app", "shop", "deployer", "ro"):
        service.psql(instance_id, f"GRANT {role} TO postgres")
    with credentials(service.ask("GET", f"/instances/{instance_id}").json()["data"]) as parameters:
        refused = run("psql", "-XAtc", "SELECT 1", "-d", parameters.replace("user=draupnir", "user=postgres"), ok=False)
        assert "pg_hba.conf rejects connection" in refused.stderr
    assert service.answer(instance_id, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'postgres'") == "f"
    for statement in (
        "ALTER ROLE postgres LOGIN",
        "DROP ROLE draupnir_superusers",
        "GRANT draupnir_superusers TO app",
        "REVOKE draupnir_superusers FROM postgres",
        "ALTER ROLE draupnir_superusers RENAME TO other",
    ):
        # Before Postgres 16: "must be superuser" or "must have admin option".
        error = service.psql(instance_id, statement, ok=False).stderr
        assert re.search("ermission denied|must be superuser|must have", error), (statement, error)
    service.destroy_instance(instance_id)


@pytest.mark.skipif(MAJOR < 16, reason="before Postgres 16 nobody creates roles in an instance")
def test_a_role_that_is_created_inside_can_sign_in_and_has_no_more_rights(service: Service, image: int) -> None:
    instance_id = int(service.create_instance(image)["id"])
    service.psql(instance_id, "CREATE ROLE newcomer LOGIN; GRANT ro TO newcomer; GRANT ro TO app")
    assert as_role(service, instance_id, "newcomer", "SELECT count(*) FROM of_postgres") == "0"
    for more in ("SUPERUSER", "REPLICATION", "BYPASSRLS", "IN ROLE pg_read_server_files", "IN ROLE postgres"):
        assert "ermission denied" in service.psql(instance_id, f"CREATE ROLE y {more}", ok=False).stderr, more
    service.destroy_instance(instance_id)


def test_search_paths_of_roles_apply(service: Service, instance: int) -> None:
    assert as_role(service, instance, "app", "SELECT count(*) FROM lines") == "0"
    assert as_role(service, instance, "shop", "SELECT count(*) FROM wares") == "0"
    assert service.answer(instance, "SHOW work_mem") == "7MB"


def test_row_security_works_as_at_the_source(service: Service, instance: int) -> None:
    assert service.answer(instance, "SET app.tenant = 1; SELECT count(*) FROM app.acct") == "100"
    assert as_role(service, instance, "app", "SET app.tenant = 1; SELECT count(*) FROM acct") == "100"


MIGRATION = """
CREATE TABLE app.m2 (id int);
ALTER TABLE app.m2 OWNER TO app;
CREATE SCHEMA x AUTHORIZATION app;
ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO ro;
GRANT ro TO app;
SET ROLE app;
CREATE TABLE x.made (id int);
RESET ROLE;
CREATE TABLE app.by_deployer (id int);
REASSIGN OWNED BY app TO shop;
SET session_replication_role = replica;
INSERT INTO app.m VALUES (1, 999);
"""


def test_migrations_work_as_for_the_deployer_of_production(service: Service, image: int) -> None:
    instance_id = int(service.create_instance(image)["id"])
    service.psql(instance_id, MIGRATION)
    granted = "SELECT has_table_privilege('ro', '{}', 'SELECT')"
    assert service.answer(instance_id, granted.format("x.made")) == "t"
    assert service.answer(instance_id, granted.format("app.by_deployer")) == "t"
    assert service.answer(instance_id, "SELECT relowner::regrole FROM pg_class WHERE relname = 'm2'") == "shop"
    service.destroy_instance(instance_id)


def test_grants_of_functions_of_extensions_stay(service: Service, instance: int) -> None:
    for role in ("app", "draupnir"):
        found = as_role(
            service, instance, role, "SELECT length(ext.uuid_generate_v4()::text), count(*) FROM app.digested"
        )
        assert found == "36|10"
    assert "permission denied" in as_role(service, instance, "shop", "SELECT ext.uuid_generate_v4()", ok=False)


def test_every_database_can_be_dumped(service: Service, instance: int) -> None:
    databases = service.answer(instance, "SELECT datname FROM pg_database WHERE datallowconn").split()
    assert set(databases) >= {"my_db", "archive", "limited", "triggered", "postgres", "template1"}
    for database in databases:
        # A database makes its sessions those of app, and a policy reads the tenant.
        environment = {**service.environment(instance), "PGOPTIONS": "-c role=none -c app.tenant=1"}
        run("pg_dump", "--enable-row-security", "-f", "/dev/null", database, env=environment)


def test_settings_of_databases_stay_and_the_script_ran_without_them(service: Service, instance: int) -> None:
    assert service.answer(instance, "SHOW statement_timeout") == "5s"
    assert service.answer(instance, "SHOW default_transaction_read_only", "archive") == "on"
    assert service.answer(instance, "SELECT current_user", "archive") == "app"
    assert service.answer(instance, "SELECT count(*) FROM secret_tokens") == "0"
    settings = service.answer(instance, "SELECT setconfig FROM pg_db_role_setting")
    assert "idle_in_transaction_session_timeout" in settings
    assert "anon" not in settings


def test_limits_and_triggers_block_no_sign_in_and_a_half_dropped_database_is_gone(
    service: Service, instance: int
) -> None:
    for database in ("limited", "triggered", "template1"):
        assert service.answer(instance, "SELECT 1", database) == "1"
    assert service.answer(instance, "SELECT count(*) FROM pg_database WHERE datname = 'dropped'") == "0"


def test_the_default_database_exists(service: Service, image: int, instance: int) -> None:
    """Several databases have data, so none of them is chosen."""
    assert service.image(image)["database"] == "postgres"
    assert service.ask("GET", f"/instances/{instance}").json()["data"]["attributes"]["database"] == "postgres"
