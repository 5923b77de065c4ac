"""Hostile data directories: a production server whose superuser attacks, by SQL and by changed files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.backups import MAJOR, Source

# Tampering that only a malicious superuser does.
TAMPER = "SET allow_system_table_mods = on;\n"
RISE = """
CREATE FUNCTION public.{name}() RETURNS {returns} LANGUAGE plpgsql AS $$ BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolsuper)
     AND EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'draupnir') THEN
    EXECUTE 'ALTER ROLE draupnir SUPERUSER';
  END IF; {ending}
END $$;
"""
HBA = b"host all all all trust\nlocal all all trust\n"


@dataclass(frozen=True)
class Directory:
    """A data directory: its builder, and the allowed error codes, by default all expected ones."""

    sql: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    change: Callable[[Path], None] | None = None
    codes: frozenset[str] = frozenset()
    superusers: tuple[str, ...] = ()
    patience_s: float = 900

    def make(self, source: Source, directory: Path) -> Path:
        """Return the upload: a tar of a copy of the source's data, changed as the case says."""
        copy = Source.copy_of(source, directory)
        if self.sql:
            copy.start()
            copy.script(self.sql)
            copy.stop()
        for name, content in self.files.items():
            (copy.data / name).parent.mkdir(parents=True, exist_ok=True)
            (copy.data / name).write_bytes(content)
        if self.change is not None:
            self.change(copy.data)
        return copy.tarball("hostile.tar")


def ready(sql: str = "", **more: object) -> Directory:
    return Directory(sql, codes=frozenset({"ready"}), **more)  # type: ignore[arg-type]


def fails(*codes: str, **more: object) -> Directory:
    return Directory(codes=frozenset(codes), **more)  # type: ignore[arg-type]


def rise(name: str, returns: str = "void", ending: str = "") -> str:
    return RISE.format(name=name, returns=returns, ending=ending)


def truncate(name: str, size_bytes: int) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        with (data / name).open("r+b") as file:
            file.truncate(size_bytes)

    return change


def overwrite(name: str, content: bytes, offset: int = 0) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        with (data / name).open("r+b") as file:
            file.seek(offset)
            file.write(content)

    return change


def cut_log(data: Path) -> None:
    """Truncate the newest segment to its first page; recovery may need only an older one."""
    newest = max(path for path in (data / "pg_wal").iterdir() if len(path.name) == 24)
    with newest.open("r+b") as file:
        file.truncate(8192)


def link(name: str, target: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        (data / name).unlink(missing_ok=True)
        (data / name).symlink_to(target)

    return change


def pipe(data: Path) -> None:
    os.mkfifo(data / "base/pipe")


ROLES = (
    "draupnir_admin", "all", "replication", "+draupnir", "/draupnir", "public role", "draupnir ", 'quo"ted',
    "line\nfeed", "back\\slash", "%I", "$user", "pg$x", "röle", "'; DROP ROLE draupnir; --", "sameuser", "DRAUPNIR",
)  # fmt: skip
DATABASES = (
    'quo"ted', "back\\slash", "host=10.9.8.7", "postgresql://10.9.8.7/x", "-c", "--help", "apo'strophe",
    "%I", "$$", "a b", "ünïcode", "x" * 63, "replication", "all",
)  # fmt: skip


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


EVENT_TRIGGERS = {
    "audits DDL": ready(
        rise("audit", "event_trigger") + "CREATE EVENT TRIGGER a ON ddl_command_end EXECUTE FUNCTION audit();"
    ),
    "always": ready(
        rise("audit", "event_trigger") + "CREATE EVENT TRIGGER a ON ddl_command_start EXECUTE FUNCTION audit();"
        "ALTER EVENT TRIGGER a ENABLE ALWAYS;"
    ),
    "on drops, for replicas": ready(
        rise("audit", "event_trigger") + "CREATE EVENT TRIGGER a ON sql_drop EXECUTE FUNCTION audit();"
        "ALTER EVENT TRIGGER a ENABLE REPLICA; ALTER ROLE ALL SET session_replication_role = replica;"
    ),
    "raises at every DDL": ready(
        "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
        "CREATE EVENT TRIGGER a ON ddl_command_start EXECUTE FUNCTION no(); ALTER EVENT TRIGGER a ENABLE ALWAYS;"
    ),
    "at sign-in, woken by a role": ready(
        rise("audit", "event_trigger") + "CREATE EVENT TRIGGER a ON login EXECUTE FUNCTION audit();"
        "ALTER EVENT TRIGGER a ENABLE ALWAYS; ALTER ROLE postgres SET event_triggers = on;"
        "ALTER DATABASE my_db SET event_triggers = on; ALTER ROLE ALL SET event_triggers = on;"
    ),
    "at sign-in, writes the configuration": ready(
        "CREATE FUNCTION plant() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        " COPY (SELECT 'hba_file = ''/srv/pgdata/mine''') TO '/srv/pgdata/postgresql.auto.conf';"
        " COPY (SELECT 'host all all all trust') TO '/srv/pgdata/mine'; EXCEPTION WHEN OTHERS THEN NULL; END $$;"
        "CREATE EVENT TRIGGER a ON login EXECUTE FUNCTION plant(); ALTER EVENT TRIGGER a ENABLE ALWAYS;"
        "ALTER ROLE postgres SET event_triggers = on; ALTER ROLE ALL SET event_triggers = on;"
    ),
    "at sign-in, endlessly": Directory(
        "CREATE FUNCTION nap() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF inet_client_addr() IS NOT NULL THEN PERFORM pg_sleep(86400); END IF; END $$;"
        "CREATE EVENT TRIGGER a ON login EXECUTE FUNCTION nap(); ALTER EVENT TRIGGER a ENABLE ALWAYS;"
        "ALTER ROLE ALL SET event_triggers = on;"
    ),
}

CONFIGURATION = {
    "includes files of the machine": ready(
        files={"postgresql.conf": b"include '/etc/shadow'\ninclude_dir '/etc/draupnir'\nport = 22\n"}
    ),
    "rules of its own for who gets in": ready(
        files={"pg_hba.conf": HBA, "pg_ident.conf": b"draupnir postgres draupnir\n", "conf.d/x.conf": b"port = 1\n"}
    ),
    "postgresql.auto.conf names other rules": ready(
        files={"postgresql.auto.conf": b"hba_file = '/srv/pgdata/mine'\nssl = off\n", "mine": HBA}
    ),
    "postgresql.auto.conf loads a library of the data": ready(
        files={
            "postgresql.auto.conf": b"shared_preload_libraries = '/srv/pgdata/evil.so'\n", "evil.so": b"\x7fELF" * 99,
        }
    ),
    "postgresql.auto.conf runs a command": ready(
        files={"postgresql.auto.conf": b"restore_command = 'touch /tmp/x'\nssl_passphrase_command = 'touch /tmp/x'\n"}
    ),
    "postgresql.auto.conf is a megabyte of noise": ready(files={"postgresql.auto.conf": bytes(range(256)) * 4096}),
    "recovers from elsewhere": ready(
        files={
            "recovery.signal": b"",
            "postgresql.auto.conf": b"restore_command = 'cp /etc/shadow %p'\nrecovery_end_command = 'id'\n",
        }
    ),
    "stands by": ready(
        files={"standby.signal": b"", "postgresql.auto.conf": b"primary_conninfo = 'host=10.9.8.7'\n"}
    ),
    "promotes": ready(files={"promote": b"", "fallback_promote": b"", "recovery.conf": b"restore_command = 'id'\n"}),
    "a server that seems to run": ready(
        files={"postmaster.pid": b"1\n/srv/pgdata\n0\n5432\n/tmp\n*\n", "postmaster.opts": b"/bin/sh -c id\n"}
    ),
    "keys and certificates of its own": ready(files={"server.key": b"x", "root.crt": b"x", "server.crt": b"x"}),
    "old backups in it": ready(files={"backup_label.old": b"x", "tablespace_map.old": b"16384 /etc\n"}),
}  # fmt: skip

SETTINGS = {
    "libraries for every session": ready(
        "ALTER ROLE ALL SET session_preload_libraries = '/srv/pgdata/evil.so';"
        "ALTER DATABASE my_db SET local_preload_libraries = 'evil';"
        "ALTER ROLE app IN DATABASE my_db SET session_preload_libraries = 'evil';"
    ),
    "timeouts of a millisecond": Directory(
        "ALTER ROLE ALL SET lock_timeout = 1; ALTER DATABASE my_db SET statement_timeout = 1;"
        "ALTER DATABASE template1 SET transaction_timeout = 1; ALTER ROLE app SET idle_session_timeout = 1;"
    ),
    "read-only": Directory("ALTER ROLE ALL SET default_transaction_read_only = on;"),
    "another search path": Directory(
        "CREATE SCHEMA trap; CREATE FUNCTION trap.format(text, VARIADIC \"any\") RETURNS text LANGUAGE internal"
        " AS 'text_format'; ALTER ROLE ALL SET search_path = trap, pg_catalog; ALTER ROLE ALL SET row_security = off;"
    ),
    "another way to write": Directory(
        "ALTER ROLE ALL SET standard_conforming_strings = off; ALTER ROLE ALL SET backslash_quote = on;"
        "ALTER ROLE ALL SET quote_all_identifiers = on; ALTER ROLE ALL SET client_encoding = 'LATIN1';"
        "ALTER ROLE ALL SET DateStyle = 'German'; ALTER ROLE ALL SET bytea_output = 'escape';"
    ),
    "another identity": Directory("ALTER ROLE ALL SET role = 'app';"),
    "damage allowed": ready(
        "ALTER ROLE ALL SET zero_damaged_pages = on; ALTER ROLE ALL SET ignore_checksum_failure = on;"
        "ALTER ROLE ALL SET allow_system_table_mods = on;"
    ),
    "tables elsewhere": ready(
        "ALTER ROLE ALL SET default_tablespace = 'nowhere'; ALTER ROLE ALL SET temp_tablespaces = 'nowhere';"
        "ALTER ROLE ALL SET default_table_access_method = 'heap';"
    ),
    "parameters granted": ready(
        "CREATE ROLE draupnir; GRANT ALTER SYSTEM ON PARAMETER archive_command, hba_file, shared_preload_libraries TO"
        " PUBLIC; GRANT SET ON PARAMETER session_preload_libraries, event_triggers, log_statement TO draupnir, PUBLIC;"
    ),
}  # fmt: skip

ROLE_CASES = {
    "draupnir is superuser": ready(
        "CREATE ROLE draupnir SUPERUSER REPLICATION BYPASSRLS CREATEROLE LOGIN PASSWORD 'x' CONNECTION LIMIT 0"
        " VALID UNTIL '1999-01-01'; ALTER ROLE draupnir SET role = 'postgres'; ALTER ROLE draupnir NOLOGIN;"
    ),
    "draupnir in everything": ready(
        "CREATE ROLE draupnir; CREATE ROLE between;"
        "GRANT postgres, app, pg_execute_server_program TO between WITH ADMIN OPTION;"
        "GRANT between, pg_read_server_files, pg_write_server_files TO draupnir WITH ADMIN OPTION;"
    ),
    "everybody in draupnir": ready("CREATE ROLE draupnir; GRANT draupnir TO app, postgres, pg_monitor;"),
    "draupnir is the bootstrap superuser": fails(
        "role_conflict", "no_superuser", "ready",
        sql="CREATE ROLE helper SUPERUSER LOGIN; \\c my_db helper\nALTER ROLE postgres RENAME TO draupnir;"
        "CREATE ROLE postgres SUPERUSER LOGIN;",
    ),
    "a superuser with an oid of the bootstrap's time": Directory(
        TAMPER + "INSERT INTO pg_authid (oid, rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,"
        " rolreplication, rolbypassrls, rolconnlimit)"
        " VALUES (11, 'evil', true, true, true, true, true, true, true, -1);",
        superusers=("evil",),
    ),
    "a predefined role that is superuser": Directory(
        TAMPER + "UPDATE pg_authid SET rolsuper = true, rolcanlogin = true WHERE rolname = 'pg_read_all_data';",
        superusers=("pg_read_all_data",),
    ),
    "the bootstrap superuser under another name": ready(
        "CREATE ROLE helper SUPERUSER LOGIN; \\c my_db helper\nALTER ROLE postgres RENAME TO \"ev il\";"
        "CREATE ROLE postgres LOGIN;",
        superusers=("ev il", "helper"),
    ),
    "the bootstrap superuser may not sign in": Directory("ALTER ROLE postgres NOLOGIN;"),
    "the bootstrap superuser is none": Directory("ALTER ROLE app SUPERUSER; ALTER ROLE postgres NOCREATEROLE;"),
    "names that confuse": Directory(
        "".join(f"CREATE ROLE {identifier(name)} SUPERUSER LOGIN;\n" for name in ROLES), superusers=ROLES[:3]
    ),
    "two thousand roles": ready(
        "DO $$ BEGIN FOR i IN 1..2000 LOOP EXECUTE format('CREATE ROLE r%s LOGIN SUPERUSER', i); END LOOP; END $$;",
        superusers=("r1", "r2000"),
    ),
    "grants to everybody": Directory(
        "GRANT EXECUTE ON FUNCTION pg_read_file(text), pg_read_binary_file(text), pg_ls_dir(text),"
        " lo_export(oid, text), lo_import(text) TO PUBLIC;"
        "GRANT ALL ON pg_authid, pg_statistic, pg_largeobject TO PUBLIC;"
        "GRANT CREATE ON SCHEMA pg_catalog TO PUBLIC; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;"
    ),
    "privileges as initdb would have made them": Directory(
        TAMPER + "UPDATE pg_proc SET proacl = NULL WHERE proname ~ '^(pg_read_file|lo_export|pg_ls_)';"
        "DELETE FROM pg_init_privs; UPDATE pg_class SET relacl = '{=r/postgres}' WHERE relname = 'pg_authid';"
    ),
}  # fmt: skip

CODE = {
    "SECURITY DEFINER functions": ready(
        rise("rise") + "ALTER FUNCTION rise() SECURITY DEFINER; GRANT EXECUTE ON FUNCTION rise() TO PUBLIC;"
    ),
    "a SECURITY DEFINER function in an extension": ready(
        rise("rise") + "ALTER FUNCTION rise() SECURITY DEFINER; ALTER EXTENSION pg_trgm ADD FUNCTION rise();"
    ),
    "a SECURITY DEFINER function with an oid of the bootstrap's time": Directory(
        rise("rise") + "ALTER FUNCTION rise() SECURITY DEFINER;" + TAMPER
        + "UPDATE pg_proc SET oid = 9990 WHERE proname = 'rise';"
    ),
    "a SECURITY DEFINER function among the catalogs": Directory(
        TAMPER + rise("rise") + "ALTER FUNCTION rise() SECURITY DEFINER; ALTER FUNCTION rise() SET SCHEMA pg_catalog;"
    ),
    "functions in C": ready(
        "CREATE FUNCTION c() RETURNS real LANGUAGE c AS '$libdir/pg_trgm', 'show_limit';" + TAMPER
        + "UPDATE pg_proc SET probin = '/srv/pgdata/evil.so' WHERE proname = 'c';",
        files={"evil.so": b"\x7fELF" * 99},
    ),
    "internal functions": ready(
        "CREATE FUNCTION peek(text) RETURNS text LANGUAGE internal STRICT AS 'pg_read_file_all';"
        "CREATE FUNCTION poke(oid, text) RETURNS int LANGUAGE internal STRICT AS 'be_lo_export';"
    ),
    "every language trusted": Directory(
        TAMPER + "UPDATE pg_language SET lanpltrusted = true; GRANT USAGE ON LANGUAGE c TO PUBLIC;"
        "GRANT USAGE ON LANGUAGE internal TO PUBLIC;"
    ),
    "a language of its own": Directory("CREATE TRUSTED LANGUAGE mine HANDLER plpgsql_call_handler;"),
    "an operator that is never true": Directory(
        "CREATE FUNCTION never(name, name) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false';" + TAMPER
        + "UPDATE pg_operator SET oprcode = 'never(name,name)'::regprocedure WHERE oid = '=(name,name)'::regoperator;"
    ),
    "an operator that rises": Directory(
        "CREATE FUNCTION eq(oid, oid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN IF EXISTS (SELECT FROM"
        " pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.~) '^draupnir$') THEN"
        " EXECUTE 'ALTER ROLE draupnir SUPERUSER'; END IF; RETURN oideq($1, $2); END $$;" + TAMPER
        + "UPDATE pg_operator SET oprcode = 'eq(oid,oid)'::regprocedure WHERE oid = '<>(oid,oid)'::regoperator;"
    ),
    # The view is in the database to which the job and the trial connect first.
    "a system view that never ends": Directory(
        "\\c template1\n" + TAMPER + "ALTER VIEW pg_catalog.pg_roles RENAME TO pg_roles_of_old;"
        "CREATE VIEW pg_catalog.pg_roles AS SELECT r.* FROM pg_roles_of_old r, generate_series(1, 100000000);"
        "GRANT SELECT ON pg_catalog.pg_roles TO PUBLIC;",
        codes=frozenset({"ready", "trial_failed"}),
    ),
    "a system view that sleeps": Directory(
        "\\c template1\n" + TAMPER + "ALTER VIEW pg_catalog.pg_roles RENAME TO pg_roles_of_old;"
        "CREATE VIEW pg_catalog.pg_roles AS SELECT r.* FROM pg_roles_of_old r WHERE pg_sleep(86400) IS NOT NULL;"
        "GRANT SELECT ON pg_catalog.pg_roles TO PUBLIC;",
        codes=frozenset({"trial_failed"}),
    ),
    "views of statistics that sleep": ready(
        "".join(
            f"\\c {database}\n{TAMPER}ALTER VIEW pg_catalog.{view} RENAME TO {view}_of_old;"
            f"CREATE VIEW pg_catalog.{view} AS SELECT o.* FROM {view}_of_old o WHERE pg_sleep(86400) IS NOT NULL;\n"
            for database in ("template1", "my_db")
            for view in ("pg_stat_user_tables", "pg_stat_user_functions", "pg_stat_activity", "pg_settings")
        )
    ),
    "a system view without superusers": Directory(
        TAMPER + "ALTER VIEW pg_catalog.pg_roles RENAME TO pg_roles_of_old; CREATE VIEW pg_catalog.pg_roles AS"
        " SELECT * FROM pg_roles_of_old WHERE NOT rolsuper; GRANT SELECT ON pg_catalog.pg_roles TO PUBLIC;"
    ),
    "rules on catalogs": Directory(
        TAMPER + "CREATE RULE keep AS ON DELETE TO pg_statistic DO INSTEAD NOTHING;"
        "CREATE RULE keep AS ON DELETE TO pg_db_role_setting DO INSTEAD NOTHING; ANALYZE;"
    ),
    "triggers on catalogs": Directory(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;" + TAMPER
        + "CREATE TRIGGER keep BEFORE DELETE ON pg_db_role_setting FOR EACH ROW EXECUTE FUNCTION keep();"
        "ALTER ROLE ALL SET event_triggers = on;"
    ),
    "casts, defaults and indexes with code": ready(
        rise("rise", "int", "RETURN 1;") + "CREATE FUNCTION one(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
        " PERFORM public.rise(); RETURN 1; END $$; CREATE TABLE t (i int DEFAULT rise()); INSERT INTO t VALUES (1);"
        "CREATE INDEX ON t (one(i)); CREATE MATERIALIZED VIEW m AS SELECT one(i) FROM t;"
        "ALTER TABLE t ADD CHECK (one(i) = 1); CREATE STATISTICS s ON (one(i)), i FROM t;"
    ),
    "triggers that rise": ready(
        rise("rise", "trigger", "RETURN NEW;") + "CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION"
        " rise(); ALTER TABLE users ENABLE ALWAYS TRIGGER t;"
    ),
    "foreign servers and a subscription": ready(
        "CREATE EXTENSION dblink; CREATE SERVER p FOREIGN DATA WRAPPER dblink_fdw OPTIONS (host '10.9.8.7');"
        "CREATE USER MAPPING FOR PUBLIC SERVER p OPTIONS (user 'x', password 'x');"
        "CREATE FOREIGN TABLE f (i int) SERVER production;"
        "CREATE SUBSCRIPTION more CONNECTION 'host=10.9.8.7' PUBLICATION p WITH (connect = false, slot_name = NONE);"
    ),
}  # fmt: skip

DATABASE_CASES = {
    "names that confuse": ready("".join(f"CREATE DATABASE {identifier(name)};\n" for name in DATABASES)),
    "a name of two lines": Directory('CREATE DATABASE "line\nfeed";'),
    "none takes connections": Directory(
        "ALTER DATABASE postgres ALLOW_CONNECTIONS false; ALTER DATABASE template1 ALLOW_CONNECTIONS false;"
    ),
    "template1 has a limit": Directory(
        "ALTER DATABASE template1 CONNECTION LIMIT 0; ALTER DATABASE my_db CONNECTION LIMIT 0;"
    ),
    "template0 takes connections": ready("ALTER DATABASE template0 ALLOW_CONNECTIONS true;"),
    "no template1": Directory("ALTER DATABASE template1 IS_TEMPLATE false; DROP DATABASE template1;"),
    "no postgres": ready("DROP DATABASE postgres;"),
    "an invalid database": Directory(TAMPER + "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'postgres';"),
    "a tablespace inside": Directory(
        "SET allow_in_place_tablespaces = on; CREATE TABLESPACE inside LOCATION ''; CREATE TABLE t (i int) TABLESPACE"
        " inside;"
    ),
    "forty databases": ready("".join(f"CREATE DATABASE many_{number};\n" for number in range(40))),
}

FILES = {
    "a symlink for the log": fails("unsafe_archive", change=link("pg_wal.link", "/etc")),
    "a symlink for a table": fails("unsafe_archive", change=link("base/evil", "/etc/shadow")),
    "a symlink for the configuration": fails("unsafe_archive", change=link("postgresql.conf", "/etc/draupnir")),
    "a tablespace outside": fails("unsafe_archive", change=link("pg_tblspc/16400", "/etc")),
    "a map of tablespaces": fails("tablespaces", files={"tablespace_map": b"16400 /etc\n"}),
    "a pipe": fails("unsafe_archive", change=pipe),
    "a control file of noise": fails("recovery_failed", change=overwrite("global/pg_control", b"\xff" * 8192)),
    "a control file of nothing": fails("recovery_failed", change=truncate("global/pg_control", 0)),
    "a control file with a wrong sum": fails("recovery_failed", change=overwrite("global/pg_control", b"\xff", 100)),
    "a log that ends early": Directory(change=cut_log),
    "no list of files": Directory(change=truncate("global/pg_filenode.map", 0)),
    "no list of relations": Directory(change=truncate("base/1/1259", 8192)),
    "roles of noise": Directory(change=overwrite("global/1260", b"\xff" * 4096, 4096)),
    "transactions of nothing": Directory(change=truncate("pg_xact/0000", 0)),
    "a label of a backup that never was": Directory(
        files={"backup_label": b"START WAL LOCATION: F/FFFFFFFF (file 0000000F0000000F000000FF)\nSTART TIMELINE: 15\n"}
    ),
    "a label of a megabyte": Directory(files={"backup_label": b"x" * 1_000_000}),
    "noise in what is emptied": ready(
        files={
            "pg_replslot/evil/state": b"\xff" * 200, "pg_stat/pgstat.stat": b"\xff" * 5000, "pg_notify/0000": b"\xff",
            "pg_logical/replorigin_checkpoint": b"",
        }
    ),
    "prepared transactions of noise": Directory(files={"pg_twophase/00000001": b"\xff" * 200}),
    "a mapping that climbs": ready(files={"pg_logical/mappings/..evil": b"x", "pg_logical/snapshots/x.snap": b"\xff"}),
    "a version with more behind": fails("postgres_missing", files={"PG_VERSION": b"%d\n; id\n" % MAJOR}),
    "a version of a megabyte": fails("postgres_missing", files={"PG_VERSION": b"1" * 1_000_000}),
    "a core and a history": ready(files={"core.1": b"x" * 1000, "pg_wal/00000002.history": b"1\t0/0\tevil\n"}),
}  # fmt: skip

UP = """CREATE FUNCTION {name}() RETURNS text SECURITY DEFINER LANGUAGE plpgsql AS
  $$ BEGIN ALTER ROLE draupnir SUPERUSER; RETURN current_user; END $$;
"""
# The superuser calls it in the job after the functions were judged, and then it creates another one.
MAKES_UP = """
  IF session_user = 'postgres' AND to_regprocedure('public.up()') IS NULL
     AND EXISTS (SELECT FROM pg_proc WHERE proname OPERATOR(pg_catalog.=) 'tell'
                    AND pg_get_userbyid(proowner) OPERATOR(pg_catalog.=) 'draupnir') THEN
    EXECUTE 'CREATE FUNCTION public.up() RETURNS text SECURITY DEFINER LANGUAGE sql AS ''SELECT current_user::text''';
  END IF;"""
IN_BOTH = UP.format(name="public.up") + "ALTER EXTENSION plpgsql ADD FUNCTION public.up();\n"
MEMBER = """INSERT INTO pg_auth_members (oid, roleid, member, grantor, admin_option, inherit_option, set_option)
  SELECT 77777, 'pg_read_server_files'::regrole, 6171, 10, true, true, true;"""
BEHIND_THE_JUDGE = {
    "a function in pg_toast": ready(UP.format(name="pg_toast.up") + "GRANT USAGE ON SCHEMA pg_toast TO PUBLIC;"),
    "a function in a schema that looks temporary": ready(
        "CREATE SCHEMA x; GRANT USAGE ON SCHEMA x TO PUBLIC;" + UP.format(name="x.up")
        + TAMPER + "UPDATE pg_namespace SET nspname = 'pg_temp_777' WHERE nspname = 'x';"
    ),
    "an operator in pg_catalog": fails(
        "cleaning_failed",
        "tampered_catalogs",
        sql=f"CREATE FUNCTION zz(oid, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN {MAKES_UP}"
        " RETURN $1 OPERATOR(pg_catalog.<>) $2::oid; END $$;"
        "CREATE OPERATOR pg_catalog.<> (LEFTARG = oid, RIGHTARG = int, FUNCTION = public.zz);",
    ),
    "a cast between Postgres's own types": fails(
        "cleaning_failed",
        "tampered_catalogs",
        sql=f"CREATE FUNCTION zi(oid) RETURNS text LANGUAGE plpgsql AS $$ BEGIN {MAKES_UP}"
        " RETURN pg_catalog.textin(pg_catalog.oidout($1)); END $$;"
        "CREATE CAST (oid AS text) WITH FUNCTION public.zi(oid);",
    ),
    "a database with the end of a line in its name": ready(
        'CREATE DATABASE "postgres\ntemplate1";\n'
        "SELECT 'postgres' || chr(10) || 'template1' AS d \\gset\n\\c :\"d\"\n" + UP.format(name="up")
    ),
    # Functions of the data in pg_catalog belonged to the superuser, and called functions that draupnir can replace.
    "an operator and its function in pg_catalog": Directory(
        "CREATE FUNCTION public.later() RETURNS void LANGUAGE sql AS ''; " + TAMPER
        + "CREATE FUNCTION pg_catalog.zz(oid, regclass) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        " IF session_user = 'draupnir' THEN PERFORM public.later(); END IF;"
        " RETURN $1 OPERATOR(pg_catalog.=) $2::oid; END $$;"
        "CREATE OPERATOR pg_catalog.= (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = pg_catalog.zz);"
    ),
    "an operator that leaves a view behind": Directory(
        TAMPER + "CREATE FUNCTION pg_catalog.zz(oid, regnamespace) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        " IF session_user = 'postgres' AND to_regclass('public.v') IS NULL AND EXISTS (SELECT FROM pg_class"
        " WHERE relname = 'users' AND pg_get_userbyid(relowner) OPERATOR(pg_catalog.=) 'draupnir') THEN"
        " EXECUTE 'CREATE VIEW public.v AS SELECT * FROM pg_catalog.pg_authid';"
        " EXECUTE 'GRANT ALL ON public.v TO PUBLIC'; END IF; RETURN $1 OPERATOR(pg_catalog.=) $2::oid; END $$;"
        "CREATE OPERATOR pg_catalog.= (LEFTARG = oid, RIGHTARG = regnamespace, FUNCTION = pg_catalog.zz);"
    ),
    "a cast that calls what draupnir can replace": ready(
        "CREATE FUNCTION public.later() RETURNS void LANGUAGE sql AS '';"
        "CREATE FUNCTION public.zz(text) RETURNS regprocedure LANGUAGE plpgsql AS $$ BEGIN"
        " IF session_user = 'draupnir' THEN PERFORM public.later(); END IF;"
        " RETURN pg_catalog.regprocedurein(pg_catalog.textout($1)); END $$;"
        "CREATE CAST (text AS regprocedure) WITH FUNCTION public.zz(text);"
    ),
    "template0 keeps its extensions": Directory(
        IN_BOTH + "ALTER DATABASE template0 ALLOW_CONNECTIONS true;\n\\c template0\n" + IN_BOTH + TAMPER
        + "INSERT INTO pg_depend SELECT 'pg_proc'::regclass, 'pg_catalog.version()'::regprocedure, 0,"
        " 'pg_extension'::regclass, oid, 0, 'n' FROM pg_extension WHERE extname = 'plpgsql';"
    ),
    "the owners of databases under another name": Directory(
        TAMPER + "UPDATE pg_authid SET rolname = 'innocent' WHERE rolname = 'pg_database_owner'; CREATE ROLE x;"
        "UPDATE pg_authid SET rolname = 'pg_database_owner' WHERE rolname = 'x';" + MEMBER
    ),
}  # fmt: skip

DIRECTORIES: dict[str, Directory] = {
    f"{group}: {name}": directory
    for group, directories in {
        "event trigger": EVENT_TRIGGERS, "configuration": CONFIGURATION, "settings": SETTINGS, "roles": ROLE_CASES,
        "code": CODE, "behind the judge": BEHIND_THE_JUDGE, "databases": DATABASE_CASES, "files": FILES,
    }.items()
    for name, directory in directories.items()
}  # fmt: skip
