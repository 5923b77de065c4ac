"""Hostile anonymisation scripts: each fails with a code, or its changes give no access in an instance."""

from __future__ import annotations

from dataclasses import dataclass

from tests.system.service import ANONYMISE

READY, FAILED = "ready", "script_failed"
# Damage by the script is detected during cleaning, stop or trial.
AFTERWARDS = ("cleaning_failed", "unclean_stop", "recovery_failed", "trial_failed")


@dataclass(frozen=True)
class Script:
    """Statements before or after the usual anonymisation, and the allowed results of the finalise."""

    text: str
    codes: frozenset[str]
    alone: bool = False  # without the usual anonymisation behind it

    def whole(self) -> str:
        """Return the uploaded script; if the image may become ready, it masks everything."""
        return self.text if self.alone else f"\\c my_db\n{self.text}\n{ANONYMISE}\n"


def ready(text: str) -> Script:
    return Script(text, frozenset({READY}))


def fails(text: str) -> Script:
    return Script(text, frozenset({FAILED}))


def either(text: str) -> Script:
    return Script(text, frozenset({READY, FAILED, *AFTERWARDS}))


ESCALATE = "CREATE OR REPLACE FUNCTION public.rise() RETURNS {returns} LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
ESCALATE += "EXECUTE 'ALTER ROLE draupnir SUPERUSER'; {ending} END $$;"

SCRIPTS: dict[str, Script] = {
    # Errors that psql ignores.
    "ROLLBACK at the end": Script(f"\\c my_db\nBEGIN;\n{ANONYMISE[9:]}\nROLLBACK;", frozenset({FAILED}), alone=True),
    "a transaction left open": Script(f"\\c my_db\nBEGIN;\n{ANONYMISE[9:]}", frozenset({FAILED}), alone=True),
    "AUTOCOMMIT off": Script(f"\\set AUTOCOMMIT off\n{ANONYMISE}", frozenset({FAILED}), alone=True),
    "a \\connect in a transaction": fails("BEGIN; DELETE FROM users; \\c my_db"),
    "ON_ERROR_STOP off": either("\\set ON_ERROR_STOP off\nSELECT 1/0;\n\\set ON_ERROR_STOP on"),
    "ON_ERROR_STOP off for good": either("\\set ON_ERROR_STOP off\nSELECT 1/0;"),
    "ON_ERROR_ROLLBACK": either("\\set ON_ERROR_ROLLBACK on\nBEGIN;\nDELETE FROM orders;\nSELECT 1/0;\nCOMMIT;"),
    "an \\if of nonsense": fails("\\if perhaps\nSELECT 1;\n\\endif"),
    "an \\if that hides the rest": Script(f"\\if false\n{ANONYMISE}", frozenset({FAILED, READY}), alone=True),
    "an \\endif too many": fails("\\endif"),
    "half a statement": Script(ANONYMISE.rstrip().removesuffix(";"), frozenset({FAILED, READY}), alone=True),
    "an open quote": Script("\\c my_db\nUPDATE users SET email = 'x;", frozenset({FAILED, READY}), alone=True),
    "\\quit before the work": Script(f"\\q\n{ANONYMISE}", frozenset({FAILED}), alone=True),
    "\\gexec of a million": fails("SELECT 'SELECT 1/0' FROM generate_series(1, 100000)\n\\gexec"),
    "\\gset over psql's own": either("SELECT 'off' AS \"ON_ERROR_STOP\"\n\\gset\nSELECT 1/0;"),
    "\\watch until it fails": fails(
        "CREATE SEQUENCE rounds;\nSELECT 1/(nextval('rounds') < 4)::int \\watch 0.1"
    ),
    "another user": either("\\c my_db app"),
    "another server": fails("\\c my_db postgres 10.9.8.7 5432"),
    "a connection string": fails("\\c postgresql://postgres@10.9.8.7/my_db?connect_timeout=2"),
    "a COPY from its own lines": either("COPY secret_tokens FROM stdin;\nx\n\\.\n"),
    # Files and programs.
    "\\!": fails("\\! touch /srv/draupnir-escaped /etc/draupnir-escaped"),
    "backticks": fails("\\set x `touch /etc/draupnir-escaped`"),
    "\\copy from a program": either("CREATE TABLE p (line text);\n\\copy p FROM PROGRAM 'id'"),
    "COPY TO a program": fails("COPY users TO PROGRAM 'cat >/tmp/x';"),
    "\\o to a program": either("\\o | cat >/etc/draupnir-escaped\nSELECT 1;\n\\o"),
    "\\o to a file outside": either("\\o /etc/draupnir-escaped\nSELECT 1;\n\\o"),
    "\\i of a file outside": either("\\i /etc/draupnir/shared_secret"),
    "\\i of itself": either("\\i /run/draupnir/image/anonymisation_script.sql"),
    "\\ir of the helper's own": either("\\ir /usr/lib/python3/dist-packages/draupnir_helper/jobs/sql/roles.sql"),
    "\\lo_import of the key": fails("\\lo_import /etc/draupnir/shared_secret"),
    "\\cd": either("\\cd /etc\n\\o draupnir-escaped\nSELECT 1;\n\\o"),
    "\\setenv": either("\\setenv PGHOST 10.9.8.7\n\\setenv PAGER '/tmp/x'\n\\setenv PGOPTIONS '-c event_triggers=on'"),
    "\\e": either("\\e"),
    "its own script rewritten": either("\\o /run/draupnir/image/anonymisation_script.sql\nSELECT 1;\n\\o"),
    # Settings that should survive the job.
    "ALTER SYSTEM": either("ALTER SYSTEM SET archive_command = 'id';"),
    "postgresql.auto.conf by COPY": ready(
        "COPY (SELECT 'hba_file = ''/srv/pgdata/mine''') TO '/srv/pgdata/postgresql.auto.conf';\n"
        "COPY (SELECT 'local all all trust') TO '/srv/pgdata/mine';"
    ),
    "postgresql.auto.conf by lo_export": ready(
        "DO $$ DECLARE o oid := lo_from_bytea(0, 'shared_preload_libraries = evil');"
        " BEGIN PERFORM lo_export(o, '/srv/pgdata/postgresql.auto.conf'); END $$;"
    ),
    "postgresql.auto.conf as a directory": either(
        "COPY (SELECT 'x') TO '/srv/pgdata/postgresql.conf';\nCOPY (SELECT 'x') TO '/srv/pgdata/standby.signal';"
    ),
    "recovery by signal files": either(
        "COPY (SELECT 'x') TO '/srv/pgdata/recovery.signal';\nCOPY (SELECT 'START WAL') TO '/srv/pgdata/backup_label';"
    ),
    "a false PG_VERSION": either("COPY (SELECT '12') TO '/srv/pgdata/PG_VERSION';"),
    "a false pg_control": either("COPY (SELECT repeat('x', 8192)) TO '/srv/pgdata/global/pg_control';"),
    "settings of roles and databases": ready(
        "CREATE ROLE draupnir;\nALTER ROLE draupnir SET x.y = 'z';\nALTER DATABASE my_db SET event_triggers = on;\n"
        "ALTER ROLE ALL SET work_mem = '64kB';"
    ),
    # Rights that should survive the job.
    "draupnir made superuser": ready("CREATE ROLE draupnir SUPERUSER LOGIN;"),
    "draupnir in everything": ready(
        "CREATE ROLE draupnir;\nGRANT pg_execute_server_program, pg_read_server_files, postgres TO draupnir;"
    ),
    "another superuser": ready("CREATE ROLE evil SUPERUSER LOGIN PASSWORD 'x';"),
    "a SECURITY DEFINER function": ready(
        ESCALATE.format(returns="void", ending="") + " GRANT EXECUTE ON FUNCTION rise() TO PUBLIC;"
    ),
    "a SECURITY DEFINER function of an extension": ready(
        ESCALATE.format(returns="void", ending="") + " ALTER EXTENSION pg_trgm ADD FUNCTION rise();"
    ),
    "an event trigger": ready(
        ESCALATE.format(returns="event_trigger", ending="")
        + " CREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION rise();"
    ),
    "an event trigger that always fires": ready(
        ESCALATE.format(returns="event_trigger", ending="")
        + " CREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION rise(); ALTER EVENT TRIGGER t ENABLE ALWAYS;"
    ),
    "an event trigger at sign-in": ready(
        ESCALATE.format(returns="event_trigger", ending="")
        + " CREATE EVENT TRIGGER t ON login EXECUTE FUNCTION rise(); ALTER EVENT TRIGGER t ENABLE ALWAYS;"
    ),
    "guarded functions for everybody": either(
        "GRANT EXECUTE ON FUNCTION pg_read_file(text), pg_ls_dir(text), lo_export(oid, text) TO PUBLIC;\n"
        "GRANT SELECT ON pg_authid, pg_statistic TO PUBLIC;"
    ),
    "parameters for everybody": ready(
        "GRANT ALTER SYSTEM ON PARAMETER archive_command TO PUBLIC;\n"
        "GRANT SET ON PARAMETER session_preload_libraries, event_triggers TO PUBLIC;"
    ),
    "a function in C": ready("CREATE FUNCTION c() RETURNS real LANGUAGE c AS '$libdir/pg_trgm', 'show_limit';"),
    "an internal function": ready(
        "CREATE FUNCTION peek(text) RETURNS text LANGUAGE internal STRICT AS 'pg_read_file_all';"
    ),
    # The job itself.
    "kills every session": either("SELECT pg_terminate_backend(pid) FROM pg_stat_activity;"),
    "kills its own server": either(
        "COPY (SELECT 1) TO '/proc/1/oom_score_adj';\nSELECT pg_terminate_backend(pid) FROM pg_stat_activity;"
    ),
    "template1 dropped": either(
        "\\c postgres\nALTER DATABASE template1 IS_TEMPLATE false;\nDROP DATABASE template1;\n\\c my_db"
    ),
    "postgres renamed": either("\\c postgres\nALTER ROLE app RENAME TO x;\n\\c my_db"),
    "a database that takes no connections": either("ALTER DATABASE template1 CONNECTION LIMIT 0;"),
    "a flood of notices": ready(
        "DO $$ BEGIN FOR i IN 1..200000 LOOP RAISE NOTICE '%', repeat('noise ', 20); END LOOP; END $$;"
    ),
    "a flood of warnings into the log": ready(
        "DO $$ BEGIN FOR i IN 1..20000 LOOP RAISE WARNING '%', repeat('noise ', 20); END LOOP; END $$;"
    ),
    "an error of ten megabytes": fails("DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', 10000000); END $$;"),
    "an error in control characters": fails(
        "DO $$ BEGIN RAISE EXCEPTION E'\\x1b[2J\\x07\\r\\n%', repeat(E'\\x1b', 99); END $$;"
    ),
    "an error that lies": fails(
        "DO $$ BEGIN RAISE EXCEPTION E'{\"finished\": true}\\nSTATUS={\"finished\": true}\\nREADY=1'; END $$;"
    ),
    "a prepared transaction": fails("BEGIN; DELETE FROM orders; PREPARE TRANSACTION 'mine';"),
    "a session left by dblink": either(
        "CREATE EXTENSION dblink;\nSELECT dblink_connect('c', 'dbname=my_db user=postgres host=/tmp/cluster');\n"
        "SELECT dblink_send_query('c', 'SELECT pg_sleep(5)');"
    ),
    "a session that the view hides": fails(
        "\\c template1\nSET allow_system_table_mods = on;\nALTER VIEW pg_stat_activity RENAME TO everybody;\n"
        "CREATE VIEW pg_catalog.pg_stat_activity AS SELECT * FROM everybody WHERE false;\n"
        "\\c my_db\nCREATE EXTENSION dblink;\n"
        "SELECT dblink_connect('c', 'dbname=my_db user=postgres host=/tmp/cluster');\n"
        "SELECT dblink_send_query('c', 'SELECT pg_sleep(3600)');"
    ),
    "the triggers off": ready("SET session_replication_role = replica;\nALTER TABLE users DISABLE TRIGGER ALL;"),
    "a view in place of a catalog's": either(
        "SET allow_system_table_mods = on;\n"
        "CREATE OR REPLACE FUNCTION nap(x bool) RETURNS bool LANGUAGE sql AS 'SELECT pg_sleep(3600) IS NULL';\n"
        "ALTER VIEW pg_catalog.pg_roles RENAME TO pg_roles_of_old;"
    ),
    "memory without end": fails(
        "SET work_mem = '1TB'; SELECT array_length(a, 1) FROM (SELECT array_agg(repeat('x', 1000000) || i) AS a FROM"
        " generate_series(1, 100000) i) x;"
    ),
}  # fmt: skip
