"""No user becomes superuser in an instance, neither through ordinary nor through hostile source data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import world
from tests.system.backups import CANARY, MAJOR, Source
from tests.system.service import ANONYMISE, Service, credentials, run

# A source with many attacks; each has once made draupnir a superuser, or revealed dropped data.
EVENT_TRIGGERS = """
CREATE FUNCTION audit_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE EVENT TRIGGER audit ON ddl_command_end EXECUTE FUNCTION audit_ddl();
CREATE EVENT TRIGGER audit_always ON ddl_command_start EXECUTE FUNCTION audit_ddl();
ALTER EVENT TRIGGER audit_always ENABLE ALWAYS;
ALTER DATABASE my_db SET work_mem = '5MB';
ALTER ROLE ALL SET session_replication_role = 'local';
ALTER ROLE app SET session_preload_libraries = 'auto_explain';
"""
# It fires when the superuser logs in to a copy, and lets everybody log in as the role with oid 11.
LOGIN_TRIGGER = """
CREATE FUNCTION open_the_door() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
  IF current_setting('data_directory') = '/srv/pgdata' THEN
    COPY (SELECT 'hostssl all draupnir all cert map=draupnir' UNION ALL SELECT 'host all eleven all trust')
      TO '/srv/pgdata/open_hba';
    COPY (SELECT 'hba_file = ''/srv/pgdata/open_hba''') TO '/srv/pgdata/postgresql.auto.conf';
  END IF;
END $$;
CREATE EVENT TRIGGER open_the_door ON login EXECUTE FUNCTION open_the_door();
ALTER EVENT TRIGGER open_the_door ENABLE ALWAYS;
ALTER ROLE postgres SET event_triggers = on;
"""
ELEVEN = """
INSERT INTO pg_authid SELECT (changed).* FROM (
  SELECT jsonb_populate_record(a, '{"oid": 11, "rolname": "eleven"}') FROM pg_authid a WHERE rolname = 'postgres'
) AS c(changed);
"""
FUNCTIONS = """
CREATE ROLE writer;
GRANT pg_read_all_data, pg_write_all_data, pg_monitor, pg_execute_server_program, pg_signal_backend TO writer;
GRANT writer TO app WITH ADMIN OPTION;
CREATE ROLE plain;
CREATE ROLE climbing IN ROLE postgres, pg_read_server_files ADMIN app;
GRANT pg_read_server_files TO pg_read_all_settings;
GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO pg_read_all_data;
GRANT SET, ALTER SYSTEM ON PARAMETER archive_command, session_replication_role TO app, PUBLIC;
CREATE FUNCTION peek(text) RETURNS bytea LANGUAGE internal STRICT AS 'pg_read_binary_file_all';
CREATE FUNCTION peek_of_extension(text) RETURNS bytea LANGUAGE internal STRICT AS 'pg_read_binary_file_all';
ALTER EXTENSION pg_trgm ADD FUNCTION peek_of_extension(text);
CREATE FUNCTION definer_of_extension() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text';
ALTER EXTENSION pg_trgm ADD FUNCTION definer_of_extension();
SET allow_system_table_mods = on;
CREATE FUNCTION pg_catalog.definer_of_catalog() RETURNS text LANGUAGE sql SECURITY DEFINER
  AS 'SELECT current_user::text';
GRANT EXECUTE ON FUNCTION pg_read_binary_file(text) TO PUBLIC;
UPDATE pg_init_privs SET initprivs = proacl FROM pg_proc p
 WHERE objoid = p.oid AND classoid = 'pg_proc'::regclass AND p.oid = 'pg_read_binary_file(text)'::regprocedure;
ALTER FUNCTION pg_read_file(text) OWNER TO app;
GRANT SELECT ON pg_authid, pg_statistic, pg_statistic_ext_data, pg_shadow TO PUBLIC;
GRANT SELECT (umoptions) ON pg_user_mapping TO PUBLIC;
GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO pg_database_owner;
UPDATE pg_language SET lanpltrusted = true WHERE lanname IN ('internal', 'c');
GRANT USAGE ON LANGUAGE internal TO PUBLIC;
GRANT CREATE ON SCHEMA pg_catalog TO PUBLIC;
"""
TABLES = """
CREATE TABLE of_extension (id int PRIMARY KEY, name text);
INSERT INTO of_extension SELECT i, 'x' FROM generate_series(1, 10) i;
ALTER EXTENSION pg_trgm ADD TABLE of_extension;
CREATE FUNCTION norm(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN $1; END $$;
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE INDEX normed ON of_extension (norm(name));
CREATE STATISTICS normed_too ON (norm(name)) FROM of_extension;
CREATE TRIGGER watch BEFORE INSERT ON of_extension FOR EACH ROW EXECUTE FUNCTION watch();
ALTER TABLE of_extension ADD CHECK (norm(name) <> ''), ALTER name SET DEFAULT norm('x');
GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
CREATE TABLE owners (id int PRIMARY KEY);
CREATE TABLE owned_by_extension (id int REFERENCES owners ON DELETE CASCADE);
ALTER EXTENSION pg_trgm ADD TABLE owned_by_extension;
CREATE TABLE parent (name text) PARTITION BY LIST (name);
CREATE TABLE part PARTITION OF parent DEFAULT;
ALTER EXTENSION pg_trgm ADD TABLE part;
CREATE FUNCTION as_bool(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN $1 = 'yes'; END $$;
CREATE AGGREGATE product(int) (SFUNC = int4mul, STYPE = int, INITCOND = '1');
CREATE TYPE span AS RANGE (subtype = float8);
CREATE CAST (text AS bool) WITH FUNCTION as_bool(text) AS ASSIGNMENT;
"""
# Objects that Postgres uses without checking draupnir's privileges, and hidden dependencies.
IMPLICIT = """
CREATE EXTENSION file_fdw;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE key_of_server (line text) SERVER files OPTIONS (filename '/run/draupnir/instance/server.key');
CREATE TABLE hidden (name text);
CREATE INDEX hidden_index ON hidden (norm(name));
ALTER EXTENSION pg_trgm ADD TABLE hidden;
CREATE VIEW roles_of_extension AS SELECT * FROM pg_authid;
GRANT ALL ON roles_of_extension TO PUBLIC;
ALTER EXTENSION pg_trgm ADD VIEW roles_of_extension;
CREATE RULE also AS ON INSERT TO of_extension DO ALSO UPDATE pg_authid SET rolsuper = true WHERE rolname = 'draupnir';
SET allow_system_table_mods = on;
DELETE FROM pg_depend WHERE objid = 'hidden_index'::regclass AND refobjid = 'norm'::regproc;
CREATE VIEW pg_catalog.all_roles AS SELECT * FROM pg_authid;
GRANT ALL ON pg_catalog.all_roles TO PUBLIC;
GRANT UPDATE (rolsuper) ON pg_catalog.all_roles TO PUBLIC;
CREATE FUNCTION pg_catalog.called_by_trigger() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS
  $$ BEGIN NEW.name := current_user; RETURN NEW; END $$;
CREATE TABLE triggered (name text);
CREATE TRIGGER uncalled BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION pg_catalog.called_by_trigger();
"""
# ANALYZE does not change the statistics of a catalog that became empty.
STATISTICS = f"""
CREATE EXTENSION postgres_fdw;
DO $$ BEGIN FOR i IN 1..30 LOOP
  EXECUTE format('CREATE SERVER s%s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L)', i, '{CANARY}-host');
END LOOP; END $$;
ANALYZE pg_foreign_server;
DROP EXTENSION postgres_fdw CASCADE;
"""
AUDIT = """
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO audit.log VALUES (OLD::text); RETURN NEW;
END $$;
CREATE TRIGGER remember AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION remember();
CREATE TABLE logins (user_id int REFERENCES users ON UPDATE CASCADE, at timestamptz DEFAULT now());
INSERT INTO logins SELECT id FROM users LIMIT 10;
"""
# The script does not name the first two. One reads the other; one cannot be refreshed outside of production.
MATERIALIZED = """
CREATE MATERIALIZED VIEW addresses AS SELECT email FROM users;
CREATE UNIQUE INDEX ON addresses (email);
CREATE MATERIALIZED VIEW longest AS SELECT max(email) AS email FROM addresses;
CREATE FUNCTION of_production() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
  IF current_setting('data_directory') = '/srv/pgdata' THEN RAISE 'no foreign server'; END IF; RETURN true; END $$;
CREATE MATERIALIZED VIEW far AS SELECT email FROM users WHERE of_production();
CREATE MATERIALIZED VIEW emptied AS SELECT email FROM users;
"""
IN_TEMPLATE0 = f"CREATE TABLE forgotten AS SELECT '{CANARY}'::text AS email"
# The script is the uploader's, too.
SCRIPT = f"""-- draupnir: keeps my_db.audit.log.line
{ANONYMISE}
REFRESH MATERIALIZED VIEW emptied WITH NO DATA;
DELETE FROM audit.log WHERE line IS NULL;
UPDATE users SET id = id + 100000 WHERE id = 1;
ALTER DATABASE template0 ALLOW_CONNECTIONS true;
\\c template0
DELETE FROM forgotten;
\\c my_db
COPY (SELECT 'hostssl all draupnir all cert map=draupnir' UNION ALL SELECT 'host all eleven all trust')
  TO '/srv/pgdata/open_hba';
COPY (SELECT 'hba_file = ''/srv/pgdata/open_hba''') TO '/srv/pgdata/postgresql.auto.conf';
COPY (SELECT 'raw') TO '/srv/pgdata/.draupnir-error';
ALTER EVENT TRIGGER audit ENABLE ALWAYS;
"""


@pytest.fixture(scope="module")
def climbable(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Provide an image of that source."""
    source = Source(tmp_path_factory.mktemp("climbable"))
    source.start()
    for statements in (EVENT_TRIGGERS, FUNCTIONS, TABLES, IMPLICIT, AUDIT, MATERIALIZED):
        source.sql(statements)
    source.sql(STATISTICS, "postgres")
    source.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
    source.sql(IN_TEMPLATE0, "template0")
    source.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS false")
    source.sql(ELEVEN, "template1")
    if MAJOR >= 17:
        source.sql("ALTER DATABASE my_db SET event_triggers = on")
        source.sql(LOGIN_TRIGGER, "template1")
    source.stop()
    before = world.observe()
    image_id = service.make_image(source.tarball("climbable.tar"), SCRIPT)
    yield image_id
    service.destroy_image(image_id)
    world.await_equal(before)


@pytest.fixture
def climber(service: Service, climbable: int) -> Iterator[int]:
    """Provide an instance of it."""
    instance_id = int(service.create_instance(climbable)["id"])
    yield instance_id
    service.destroy_instance(instance_id)


def climbs(signature: str, result: str = "") -> str:
    """Create a function that makes draupnir a superuser if a superuser runs it."""
    return f"""
        CREATE OR REPLACE FUNCTION {signature} LANGUAGE plpgsql AS $$ BEGIN
          ALTER ROLE draupnir SUPERUSER; {result}
        EXCEPTION WHEN insufficient_privilege THEN {result} END $$;"""


def is_superuser(service: Service, instance_id: int) -> bool:
    return service.answer(instance_id, "SELECT rolsuper FROM pg_roles WHERE rolname = 'draupnir'") == "t"


def test_a_trusted_extension_s_script_fires_no_event_trigger(service: Service, climber: int) -> None:
    service.psql(climber, climbs("audit_ddl() RETURNS event_trigger"))
    service.psql(climber, "CREATE EXTENSION hstore")
    assert not is_superuser(service, climber)
    assert service.answer(climber, "SELECT DISTINCT evtenabled FROM pg_event_trigger") == "D"
    assert service.psql(climber, "ALTER EVENT TRIGGER audit ENABLE", ok=False).returncode != 0
    assert service.psql(climber, "ALTER DATABASE my_db SET event_triggers = on", ok=False).returncode != 0


def test_no_role_or_database_has_a_setting_that_overrides_the_command_line(service: Service, climber: int) -> None:
    """Other settings stay, because the application may need them."""
    assert service.answer(climber, "SELECT setconfig FROM pg_db_role_setting") == "{work_mem=5MB}"


def test_configuration_written_by_the_data_in_the_job_is_removed(service: Service, climbable: int) -> None:
    image = Path(f"/srv/draupnir/image_snapshots/{climbable}")
    assert (image / "postgresql.auto.conf").read_text() == "max_prepared_transactions = '5'\n"
    assert not (image / ".draupnir-error").exists()


def test_no_other_superuser_remains_and_no_role_signs_in_without_a_certificate(
    service: Service, climbable: int
) -> None:
    instance = service.create_instance(climbable)
    with credentials(instance) as parameters:
        for user in ("eleven", "app", "postgres"):
            for more in ("sslcert=/none sslkey=/none", "sslmode=disable"):
                found = run("psql", "-XAtc", "SELECT 1", "-d", f"{parameters} user={user} {more}", ok=False)
                assert found.returncode != 0, (user, more)
    superusers = service.answer(int(instance["id"]), "SELECT rolname, rolcanlogin FROM pg_roles WHERE rolsuper")
    assert superusers == "postgres|f"
    service.destroy_instance(int(instance["id"]))


REFUSED = {
    "a function of its own name": "SELECT peek('PG_VERSION')",
    "one that calls itself an extension's": "SELECT peek_of_extension('PG_VERSION')",
    "one that an initial privilege covers": "SELECT pg_read_binary_file('PG_VERSION')",
    "one that another role owned": "SELECT pg_read_file('PG_VERSION')",
    "one of every database's owner": "SELECT pg_ls_dir('.')",
    "one that a predefined role was granted": "SELECT pg_ls_dir('.')",
    "a program": "COPY (SELECT) TO PROGRAM 'true'",
    "a file of the server": "COPY of_extension FROM '/srv/pgdata/PG_VERSION'",
    "a language that is not safe": "CREATE FUNCTION mine() RETURNS int LANGUAGE internal AS 'pg_backend_pid'",
    "the schema that is searched first": "CREATE FUNCTION pg_catalog.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "one that runs as an extension's owner": "SELECT definer_of_extension()",
    "one that runs as the owner of the catalog": "SELECT definer_of_catalog()",
    "a cast of Postgres's own types": climbs("as_bool(text) RETURNS bool", "RETURN true;"),
    "a trigger on the superuser's table": (
        "CREATE TRIGGER mine BEFORE INSERT ON of_extension FOR EACH ROW EXECUTE FUNCTION watch()"
    ),
    "a key to the superuser's table": "CREATE TABLE child (id int REFERENCES of_extension)",
    # A member of pg_read_all_data reads these three, and finds none.
    "passwords": "SET ROLE plain; SELECT rolpassword FROM pg_authid",
    "samples of everybody": "SET ROLE plain; SELECT FROM pg_statistic",
    "passwords of foreign servers": "SET ROLE plain; SELECT umoptions FROM pg_user_mapping",
    "a view in the catalog": "UPDATE pg_catalog.all_roles SET rolsuper = true WHERE rolname = 'draupnir'",
    "a view that initdb makes": "UPDATE pg_group SET groname = 'others' WHERE groname = 'draupnir_superusers'",
    "a view of an extension": "UPDATE roles_of_extension SET rolsuper = true WHERE rolname = 'draupnir'",
    "a view, without the rules of the origin": (
        "SET session_replication_role = replica; "
        "UPDATE pg_group SET groname = 'others' WHERE groname = 'draupnir_superusers'"
    ),
}


def test_functions_and_catalogs_of_the_superuser_stay_closed(service: Service, climber: int) -> None:
    for name, statement in REFUSED.items():
        found = service.psql(climber, statement, ok=False)
        assert found.returncode != 0, name
        assert re.search("permission denied|must be (owner|superuser)", found.stderr), (name, found.stderr)


MEMBERS = """
    WITH RECURSIVE reached(member, role) AS (
      SELECT member, roleid FROM pg_auth_members
       UNION SELECT reached.member, m.roleid FROM reached JOIN pg_auth_members m ON m.member = role)
    SELECT DISTINCT role::regrole::text FROM reached WHERE role::regrole::text ~ '^(pg_|postgres|draupnir)'
       AND member <> 'pg_monitor'::regrole ORDER BY 1"""


def test_no_role_is_an_indirect_member_of_a_role_beyond_sql(service: Service, climber: int) -> None:
    found = service.answer(climber, MEMBERS).split()
    assert found == [
        *("draupnir_superusers", "pg_monitor", "pg_read_all_data", "pg_read_all_settings", "pg_read_all_stats"),
        *("pg_stat_scan_tables", "pg_write_all_data"),
    ]
    group = "SELECT member::regrole, admin_option FROM pg_auth_members WHERE roleid = 'draupnir_superusers'::regrole"
    assert service.answer(climber, group) == "postgres|f"
    assert service.answer(climber, "SELECT count(rolpassword) FROM pg_authid") == "0"


def test_replication_roles_are_the_only_parameter_that_is_granted(service: Service, climber: int) -> None:
    assert service.answer(climber, "SELECT DISTINCT parname FROM pg_parameter_acl") == "session_replication_role"
    service.psql(climber, "SET session_replication_role = replica")


def test_safe_functions_can_still_be_called(service: Service, climber: int) -> None:
    assert service.answer(climber, "SELECT similarity('abc', 'abc'), 'abc' % 'abc'") == "1|t"
    assert service.answer(climber, "SELECT tell()") == "draupnir"
    assert (
        service.answer(climber, "SELECT product(x), span(1, 2) FROM generate_series(1, 4) x GROUP BY 2") == "24|[1,2)"
    )
    assert service.answer(climber, "SELECT 'yes'::text::bool") == "t"
    service.psql(climber, "CREATE OR REPLACE FUNCTION norm(text) RETURNS text LANGUAGE sql AS 'SELECT $1'")
    service.psql(climber, "INSERT INTO of_extension VALUES (11, 'y')")


def test_no_object_of_draupnir_depends_on_a_table_of_the_superuser(service: Service, climber: int) -> None:
    """VACUUM, ANALYZE and scripts of extensions act as the table's owner."""
    hanging = """
        SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d JOIN pg_proc p ON p.oid = d.refobjid
         WHERE refclassid = 'pg_proc'::regclass AND proowner = 'draupnir'::regrole
           AND (d.objid IN (SELECT indexrelid FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relowner = 10)
             OR d.objid IN (SELECT t.oid FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE relowner = 10)
             OR d.objid IN (SELECT t.oid FROM pg_constraint t JOIN pg_class c ON c.oid = conrelid WHERE relowner = 10)
             OR d.objid IN (SELECT t.oid FROM pg_attrdef t JOIN pg_class c ON c.oid = adrelid WHERE relowner = 10)
             OR d.objid IN (SELECT t.oid FROM pg_statistic_ext t JOIN pg_class c ON c.oid = stxrelid
                             WHERE relowner = 10))"""
    assert service.answer(climber, hanging) == ""
    assert (
        service.answer(climber, "SELECT relowner::regrole FROM pg_class WHERE relname = 'of_extension'") == "postgres"
    )


def test_implicitly_called_functions_have_no_extra_rights(service: Service, climber: int) -> None:
    assert service.answer(climber, "INSERT INTO triggered VALUES ('') RETURNING name") == "draupnir"
    service.psql(climber, "INSERT INTO of_extension VALUES (12, 'z')")
    assert not is_superuser(service, climber)
    assert service.answer(climber, "SELECT count(*) FROM pg_indexes WHERE tablename = 'hidden'") == "0"
    assert service.answer(climber, "SELECT count(*) FROM pg_foreign_table") == "0"


def test_no_cascade_and_no_index_of_a_parent_runs_as_the_superuser(service: Service, climber: int) -> None:
    """A cascade acts as the owner of the table with the key, CREATE INDEX on a partition as the partition's owner."""
    keys = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'owned_by_extension'::regclass AND contype = 'f'"
    assert service.answer(climber, keys) == "0"
    service.psql(climber, "INSERT INTO parent VALUES ('x')")
    who = "IF current_user <> 'draupnir' THEN RAISE 'called as %', current_user; END IF; RETURN '';"
    function = "CREATE FUNCTION who(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS"
    service.psql(climber, f"{function} $$ BEGIN {who} END $$")
    service.psql(climber, "CREATE INDEX ON parent (who(name))")


def test_the_template_that_nobody_connects_to_is_cleaned_like_any_database(service: Service, climber: int) -> None:
    assert service.answer(climber, "SELECT datallowconn FROM pg_database WHERE datname = 'template0'") == "f"
    service.psql(climber, "CREATE DATABASE mine TEMPLATE template0")
    owned = "SELECT relowner::regrole, (SELECT count(*) FROM forgotten) FROM pg_class WHERE relname = 'forgotten'"
    assert service.answer(climber, owned, "mine") == "draupnir|0"


def test_the_tables_that_triggers_and_cascades_wrote_to_are_named(service: Service, climbable: int) -> None:
    found = service.image(climbable)["tables_written_by_triggers"]
    assert found == ["my_db.audit.log", "my_db.public.logins"]
    assert "my_db.audit.log" in service.client("images", "show", str(climbable)).stdout


def test_materialized_views_show_nothing_that_the_script_has_changed(service: Service, climber: int) -> None:
    found = "SELECT (SELECT count(*) FROM addresses WHERE email LIKE 'user%@example.com'), email FROM longest"
    assert service.answer(climber, found) == "5000|user9@example.com"
    for name in ("far", "emptied"):
        assert "has not been populated" in service.psql(climber, f"SELECT * FROM {name}", ok=False).stderr


def test_statistics_of_catalogs_contain_no_removed_values(service: Service, climber: int) -> None:
    for database in ("postgres", "my_db", "template1"):
        found = f"SELECT tablename FROM pg_stats AS s WHERE schemaname = 'pg_catalog' AND s::text LIKE '%{CANARY}%'"
        assert service.answer(climber, found, database) == ""


@pytest.mark.parametrize(
    ("change", "back", "named"),
    [
        (
            "UPDATE pg_proc SET prosrc = 'pg_read_binary_file_all' WHERE oid = 'md5(text)'::regprocedure",
            "UPDATE pg_proc SET prosrc = 'md5_text' WHERE oid = 'md5(text)'::regprocedure",
            "pg_catalog.md5",
        ),
        # Our own SQL would call it instead of the polymorphic one.
        (
            "CREATE FUNCTION pg_catalog.format(text, name, text) RETURNS text LANGUAGE sql AS $$ SELECT 'SELECT 1' $$",
            "DROP FUNCTION pg_catalog.format(text, name, text)",
            "pg_catalog.format",
        ),
        # ANALYZE of a catalog calls it as the superuser.
        (
            "CREATE FUNCTION sampled(int8) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN false; END';"
            " UPDATE pg_type SET typanalyze = 'public.sampled'::regproc WHERE typname = 'name'",
            "UPDATE pg_type SET typanalyze = 0 WHERE typname = 'name'; DROP FUNCTION sampled",
            "pg_type.typanalyze",
        ),
        # Only the files reveal it, because no function of the data is called.
        (
            "UPDATE pg_operator SET oprcode = 'oidvectorne'::regproc WHERE oprcode = 'oidvectoreq'::regproc",
            "UPDATE pg_operator SET oprcode = 'oidvectoreq'::regproc"
            " WHERE oprname = '=' AND oprleft = 'oidvector'::regtype",
            "pg_operator.oprcode",
        ),
    ],
    ids=["function", "version", "type", "operator"],
)
def test_a_catalog_that_was_changed_by_hand_fails_the_image(
    service: Service, source: Source, change: str, back: str, named: str
) -> None:
    path = source.directory / "changed.tar"
    source.start()
    try:
        source.sql(change)
        source.stop()
        source.tarball(path.name)
    finally:
        source.start()
        source.sql(back)
        source.stop()
    image_id = service.create_image()
    service.upload(image_id, path)
    (error,) = service.finalise(image_id).json()["errors"]
    assert error["code"] == "tampered_catalogs"
    assert named in error["detail"]
    service.destroy_image(image_id)
    path.unlink()
