"""Escalations from an instance's user to superuser, files, commands and masked data; each has to fail."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import psycopg

from tests.system.backups import CANARY
from tests.system.service import Service, credentials, run

# An attempt succeeds if it prints `escaped`. Statements after a failed one are skipped, unless it ends in FINALLY.
FINALLY = "SELECT 'escaped' FROM pg_roles WHERE rolname = current_user AND rolsuper"
ATTEMPTS: dict[str, str] = {
    "is superuser": FINALLY,
    "becomes superuser": f"ALTER ROLE draupnir SUPERUSER; {FINALLY}",
    "bypasses row security": "SELECT 'escaped' FROM pg_roles WHERE rolname = current_user AND rolbypassrls",
    "replicates": "SELECT 'escaped' FROM pg_roles WHERE rolname = current_user AND rolreplication",
    "authorises itself": f"SET SESSION AUTHORIZATION postgres; {FINALLY}",
    "takes the superuser's role": f"SET ROLE postgres; {FINALLY}",
    "is a member of a superuser": (
        "SELECT 'escaped' FROM pg_roles WHERE rolsuper AND pg_has_role(current_user, oid, 'MEMBER')"
    ),
    "is a member of a role that reads or runs on the server": (
        "SELECT 'escaped' FROM pg_roles WHERE rolname IN ('pg_read_server_files', 'pg_write_server_files',"
        " 'pg_execute_server_program', 'pg_read_all_settings', 'pg_monitor')"
        " AND pg_has_role(current_user, oid, 'MEMBER')"
    ),
    "makes a superuser": "CREATE ROLE heir SUPERUSER; SELECT 'escaped'",
    "runs a program": "COPY (SELECT 1) TO PROGRAM 'true'; SELECT 'escaped'",
    "reads a file by COPY": "CREATE TEMP TABLE t (line text); COPY t FROM '/etc/passwd'; SELECT 'escaped'",
    "writes a file by COPY": "COPY (SELECT 1) TO '/srv/pgdata/postgresql.auto.conf'; SELECT 'escaped'",
    "reads a file": "SELECT 'escaped' FROM pg_read_file('PG_VERSION')",
    "reads bytes": "SELECT 'escaped' FROM pg_read_binary_file('global/pg_control')",
    "reads bytes in part": "SELECT 'escaped' FROM pg_read_binary_file('global/pg_control', 0, 10, true)",
    "lists files": "SELECT 'escaped' FROM pg_ls_dir('.')",
    "lists the log": "SELECT 'escaped' FROM pg_ls_waldir()",
    "looks at a file": "SELECT 'escaped' FROM pg_stat_file('PG_VERSION')",
    "imports a file": "SELECT 'escaped' FROM lo_import('PG_VERSION')",
    "exports a file": "SELECT 'escaped' FROM lo_export(lo_from_bytea(0, 'x'), '/srv/pgdata/x')",
    "loads a library": "LOAD '/srv/pgdata/evil.so'; SELECT 'escaped'",
    "makes a function in C": (
        "CREATE FUNCTION pg_temp.c() RETURNS int LANGUAGE c AS '$libdir/pg_trgm', 'show_limit'; SELECT 'escaped'"
    ),
    "makes an internal function": (
        "CREATE FUNCTION pg_temp.i(text) RETURNS text LANGUAGE internal AS 'pg_read_file_all'; SELECT 'escaped'"
    ),
    "may use a language that reaches the server": (
        "SELECT 'escaped' FROM pg_language WHERE lanname IN ('c', 'internal') AND lanpltrusted"
    ),
    "changes the server": "ALTER SYSTEM SET archive_command = 'true'; SELECT 'escaped'",
    "changes a guarded parameter": (
        "SELECT 'escaped' FROM pg_settings WHERE context IN ('sighup', 'postmaster', 'superuser', 'superuser-backend')"
        " AND (name <> 'session_replication_role' AND has_parameter_privilege(name, 'SET')"
        " OR has_parameter_privilege(name, 'ALTER SYSTEM')) LIMIT 1"
    ),
    "changes a catalog": "SET allow_system_table_mods = on; UPDATE pg_authid SET rolsuper = true; SELECT 'escaped'",
    "writes to a catalog": (
        "SELECT 'escaped' FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'"
        " AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER') LIMIT 1"
    ),
    "owns a catalog": (
        "SELECT 'escaped' FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace"
        " AND pg_has_role(current_user, relowner, 'USAGE') AND relkind IN ('r', 'v') LIMIT 1"
    ),
    "owns the schema of the catalogs": (
        "SELECT 'escaped' FROM pg_namespace WHERE nspname = 'pg_catalog'"
        " AND (pg_has_role(current_user, nspowner, 'USAGE') OR has_schema_privilege(oid, 'CREATE'))"
    ),
    "owns a function among the catalogs": (
        "SELECT 'escaped' FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace"
        " AND pg_has_role(current_user, proowner, 'USAGE') LIMIT 1"
    ),
    "reads passwords": "SELECT 'escaped' FROM pg_authid LIMIT 1",
    "reads samples of everybody": "SELECT 'escaped' FROM pg_statistic LIMIT 1",
    "reads passwords of foreign servers": (
        f"SELECT 'escaped' FROM pg_user_mappings WHERE umoptions::text LIKE '%{CANARY}%'"
    ),
    "calls a superuser's function": (
        "SELECT 'escaped' FROM pg_proc p JOIN pg_roles r ON r.oid = proowner WHERE prosecdef AND rolsuper"
        " AND has_function_privilege(p.oid, 'EXECUTE') LIMIT 1"
    ),
    # Another name for an extension's function gives no more rights than the function itself.
    "calls a function in C that no extension has": (
        "SELECT 'escaped' FROM pg_proc p JOIN pg_language l ON l.oid = prolang WHERE lanname IN ('c', 'internal')"
        " AND p.oid >= 16384 AND has_function_privilege(p.oid, 'EXECUTE') AND NOT EXISTS (SELECT FROM pg_proc e"
        " JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = e.oid AND d.deptype = 'e'"
        " WHERE e.prosrc = p.prosrc AND e.probin IS NOT DISTINCT FROM p.probin AND e.proargtypes = p.proargtypes"
        " AND e.prorettype = p.prorettype) LIMIT 1"
    ),
    "has an event trigger that fires": "SELECT 'escaped' FROM pg_event_trigger WHERE evtenabled <> 'D' LIMIT 1",
    "has a trusted extension run its code": (
        "DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT p.oid FROM pg_proc p JOIN pg_language l ON l.oid = prolang"
        " WHERE pg_has_role(current_user, proowner, 'USAGE') AND lanname = 'plpgsql' AND prokind = 'f' AND pronargs = 0"
        " AND prorettype IN ('event_trigger'::regtype, 'trigger'::regtype) LOOP"
        " EXECUTE format('CREATE OR REPLACE FUNCTION %s RETURNS %s LANGUAGE plpgsql AS %L', f,"
        " (SELECT prorettype::regtype FROM pg_proc WHERE oid = f),"
        " 'BEGIN IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN'"
        " ' ALTER ROLE draupnir SUPERUSER; END IF; RETURN NULL; END'); END LOOP; END $$;"
        f" CREATE EXTENSION IF NOT EXISTS hstore; CREATE EXTENSION IF NOT EXISTS citext; {FINALLY}"
    ),
    "has an extension's update run its code": (
        "CREATE OR REPLACE FUNCTION public.later() RETURNS void LANGUAGE plpgsql AS"
        " 'BEGIN ALTER ROLE draupnir SUPERUSER; EXCEPTION WHEN insufficient_privilege THEN NULL; END';"
        f" CREATE EXTENSION cube VERSION '1.2'; ALTER EXTENSION cube UPDATE TO '1.4'; {FINALLY}"
    ),
    "writes to roles through a view": f"UPDATE v SET rolsuper = true WHERE rolname = 'draupnir'; {FINALLY}",
    "reaches production": (
        "CREATE EXTENSION IF NOT EXISTS dblink; SELECT dblink_connect('host=10.9.8.7 connect_timeout=2 user=x'); "
        "SELECT 'escaped'"
    ),
    "starts a subscription": (
        "CREATE SUBSCRIPTION s CONNECTION 'host=10.9.8.7' PUBLICATION p WITH (connect = false); SELECT 'escaped'"
    ),
    "finds a subscription that is on": "SELECT 'escaped' FROM pg_subscription WHERE subenabled LIMIT 1",
    "sees an e-mail address": f"SELECT 'escaped' FROM users WHERE email LIKE '{CANARY}%' LIMIT 1",
    "sees an e-mail address in the statistics": (
        "SELECT 'escaped' FROM pg_stats"
        f" WHERE concat(most_common_vals::text, histogram_bounds::text) LIKE '%{CANARY}%' LIMIT 1"
    ),
}
SIGN_INS = ("postgres", "app", "pg_read_all_data", "nobody-at-all")
# Session settings of the image that would prevent the attempts.
UNHINDERED = (
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c default_transaction_read_only=off"
    " -c client_min_messages=error -c standard_conforming_strings=on -c search_path=public"
)


def escaped(service: Service, instance_id: int, superusers: Sequence[str] = ()) -> list[str]:
    """Return the names of the attempts that succeed in the instance."""
    environment = {**service.environment(instance_id), "PGDATABASE": "my_db", "PGOPTIONS": UNHINDERED}
    text = "".join(f"\\echo {name}\n{_script(statements)}" for name, statements in ATTEMPTS.items()) + "\\echo end\n"
    lines = run("psql", "-XAtq", "-f", "-", ok=False, env=environment, input=text).stdout.splitlines()
    assert lines[-1:] == ["end"], "each attempt was made"
    found, attempt = [], ""
    for line in lines:
        attempt = line if line in ATTEMPTS else attempt
        if line == "escaped":
            found.append(attempt)
    data = service.ask("GET", f"/instances/{instance_id}").json()["data"]
    with credentials(data, "template1") as connection:
        return found + _sign_ins(connection, superusers)


def _script(statements: str) -> str:
    """Return the psql input: the statements in order, up to the first that fails, or all."""
    each = _split(statements)
    if statements.endswith(FINALLY):
        return "".join(f"{statement};\n" for statement in each)
    return "".join(f"{statement};\n\\if :ERROR\n\\else\n" for statement in each) + "\\endif\n" * len(each)


def _split(statements: str) -> list[str]:
    """Split statements; a dollar-quoted body stays whole."""
    head, dollars, rest = statements.partition("$$")
    if not dollars:
        return [each.strip() for each in statements.split(";") if each.strip()]
    body, _, tail = rest.partition("$$")
    return [f"{head}$${body}$$", *(each.strip() for each in tail.split(";") if each.strip())]


def _sign_ins(connection: str, superusers: Sequence[str]) -> list[str]:
    """Return the ways to log in other than as draupnir with its certificate."""
    ways: dict[str, dict[str, str]] = {
        "without TLS": {"sslmode": "disable"},
        "without a certificate": {"sslmode": "require", "sslcert": "/none", "sslkey": "/none", "sslrootcert": ""},
        "with draupnir's certificate": {},
    }
    tried = [(role, way) for role in (*SIGN_INS, *superusers) for way in ways]
    tried += [("draupnir", way) for way in list(ways)[:2]]

    def signs_in(role: str, way: str) -> bool:
        options: dict[str, str] = {"connect_timeout": "30", **ways[way]}
        try:
            psycopg.connect(psycopg.conninfo.make_conninfo(connection, **{"user": role, **options})).close()
        except psycopg.OperationalError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        got_in = list(pool.map(lambda each: signs_in(*each), tried))
    return [f"{role} {way}" for (role, way), success in zip(tried, got_in, strict=True) if success]
