"""An image is ready only if its script ran completely and no query can return raw data."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.system.backups import CANARY, MAJOR, Source
from tests.system.service import ANONYMISE, Service, run

# Every readable value of every table and catalog, as one text.
EVERYTHING = """
SELECT string_agg(x, ' ') FROM (
  SELECT query_to_xml(format('SELECT * FROM %s', c.oid::regclass), true, false, '')::text
    FROM pg_class c WHERE relkind IN ('r', 'm') AND has_table_privilege(c.oid, 'SELECT')
  UNION ALL SELECT query_to_xml('SELECT * FROM pg_stats', true, false, '')::text
  UNION ALL SELECT query_to_xml('SELECT * FROM pg_stats_ext', true, false, '')::text
  UNION ALL SELECT query_to_xml('SELECT * FROM pg_user_mappings', true, false, '')::text
) AS t(x)
"""


@pytest.fixture
def uploaded(service: Service, backup: Path) -> int:
    """Provide an image with an uploaded backup."""
    image_id = service.create_image()
    service.upload(image_id, backup)
    return image_id


def failed(service: Service, image_id: int) -> str:
    """Finalise with a failing script, and return the detail."""
    answer = service.finalise(image_id)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["code"] == "script_failed", error
    return str(error["detail"])


def test_no_query_returns_a_raw_value(service: Service, instance: int) -> None:
    """Rows, statistics of a table that the script emptied or changed, passwords of foreign servers."""
    assert CANARY not in service.answer(instance, EVERYTHING)
    assert service.answer(instance, "SELECT count(*) FROM users WHERE email LIKE '%@example.com'") == "5000"


def test_deleted_rows_take_no_space_and_the_planner_has_statistics(service: Service, instance: int) -> None:
    """VACUUM and ANALYZE have processed every table, due or not."""
    size = service.answer(
        instance, "SELECT pg_relation_size('secret_tokens'), reltuples FROM pg_class WHERE relname = 'users'"
    )
    assert size == "0|5000"
    stale = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND reltuples = -1"
    for database in ("my_db", "postgres", "template1"):
        assert service.answer(instance, stale, database) == "0"


def test_objects_of_the_superuser_belong_to_draupnir_and_others_to_their_owners(
    service: Service, instance: int
) -> None:
    owners = """
        SELECT DISTINCT relowner::regrole FROM pg_class c WHERE oid >= 16384 AND relkind IN ('r', 'v', 'S', 'm')
           AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
        UNION SELECT proowner::regrole FROM pg_proc p WHERE oid >= 16384
           AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
        UNION SELECT typowner::regrole FROM pg_type t WHERE oid >= 16384
           AND NOT EXISTS (SELECT FROM pg_type element WHERE element.typarray = t.oid)
           AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = t.oid AND deptype = 'e')
        UNION SELECT nspowner::regrole FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_'
        UNION SELECT stxowner::regrole FROM pg_statistic_ext
        UNION SELECT lomowner::regrole FROM pg_largeobject_metadata
        UNION SELECT datdba::regrole FROM pg_database WHERE NOT datistemplate"""
    assert set(service.answer(instance, owners).split()) == {"app", "draupnir"}
    assert service.answer(instance, "SELECT tell()") == "draupnir", "a SECURITY DEFINER function gives no rights"
    attributes = "rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
    role = service.answer(instance, f"SELECT {attributes} FROM pg_roles WHERE rolname = 'draupnir'")
    assert role == ("f|t|t|f|f" if MAJOR >= 16 else "f|t|f|f|f")
    assert service.answer(instance, "SELECT rolname FROM pg_roles WHERE rolcanlogin ORDER BY oid") == "app\ndraupnir"
    service.psql(instance, "CREATE DATABASE scratch")
    service.psql(instance, "DROP TABLE users; ALTER TABLE orders ADD x int; DROP TYPE mood; CREATE SCHEMA s")


def test_an_instance_has_no_links_to_production(service: Service, instance: int) -> None:
    assert service.answer(instance, "SELECT count(*) FROM pg_subscription") == "0"
    assert service.answer(instance, "SELECT count(*) FROM pg_prepared_xacts") == "0"
    assert service.answer(instance, "SELECT count(*) FROM pg_user_mappings") == "0"
    assert service.answer(instance, "SHOW archive_mode") == "off"


def test_a_database_whose_name_reads_like_a_connection_string_is_treated_like_any_other(
    service: Service, uploaded: int
) -> None:
    name = "dbname=postgres"
    script = f'{ANONYMISE}\n\\c postgres\nCREATE DATABASE "{name}" TEMPLATE my_db;'
    service.ask("PATCH", f"/images/{uploaded}", {"anonymisation_script": script})
    assert service.finalise(uploaded).status_code == 200
    instance_id = int(service.create_instance(uploaded)["id"])
    database = service.answer(
        instance_id, "SELECT current_database(), relowner::regrole FROM pg_class WHERE relname = 'users'", name
    )
    assert database == f"{name}|draupnir"
    service.destroy_instance(instance_id)
    service.destroy_image(uploaded)


SCRIPTS = {
    "first statement": "SELECT 1/0;",
    "a later statement": "\\c my_db\nDELETE FROM secret_tokens;\nUPDATE nope SET x = 1;\n",
    "a syntax error": "\\c my_db\nDELETE FORM secret_tokens;",
    "an unknown database": "\\c nope\nDELETE FROM secret_tokens;",
    "an end before the end": f"\\q\n{ANONYMISE}",
    "an end in a condition": f"\\if true\n\\q\n\\endif\n{ANONYMISE}",
    "an open comment": f"/* the rest\n{ANONYMISE}",
    "an unknown psql command": "\\nonsense",
    "a missing file": "\\i /etc/nope.sql",
    "an unterminated string": "\\c my_db\nUPDATE users SET name = 'x",
    "an unterminated if": "\\if true\nSELECT 1;",
    "a transaction left open": "\\c my_db\nBEGIN;\nDELETE FROM secret_tokens;",
    "autocommit left off": "\\set AUTOCOMMIT off\n\\c my_db\nDELETE FROM secret_tokens;",
    "a transaction open at a connect": "\\c my_db\nBEGIN;\nDELETE FROM secret_tokens;\n\\c postgres\nSELECT 1;",
    "a transaction open at the last line": "\\c my_db\nBEGIN;\nDELETE FROM secret_tokens;\n\\c postgres",
    "a commit in another database": (
        "\\set AUTOCOMMIT off\n\\c my_db\nDELETE FROM secret_tokens;\n\\c postgres\nCREATE TABLE t ();\nCOMMIT;"
    ),
    "a dry run": "\\c my_db\nBEGIN;\nDELETE FROM secret_tokens;\nROLLBACK;",
    "a prepared transaction": "\\c my_db\nBEGIN;\nDELETE FROM secret_tokens;\nPREPARE TRANSACTION 'p';",
    "a condition that is none": "\\c my_db\n\\if ture\nDELETE FROM secret_tokens;\n\\endif",
    "a shell command in backticks": "\\set salt `openssl rand -hex 16`\n\\c my_db\nDELETE FROM secret_tokens;",
    "only a shell command": "\\! psql -d my_db -c 'DELETE FROM secret_tokens'",
    "a shell command after another": "\\c my_db\nSELECT 1; \\! psql -d my_db -c 'DELETE FROM secret_tokens'",
    "a shell command": "\\set ON_ERROR_STOP on\n\\! id > /tmp/x\n\\copy (select 1) to program 'id'",
    "a server program": "COPY (SELECT 1) TO PROGRAM 'id > /tmp/draupnir-escaped'",
    "a session that is ended": "SELECT pg_terminate_backend(pg_backend_pid());",
}


# This script does not fail, and all of it is executed.
PERMITTED = """
\\c my_db
DO $$ BEGIN
  INSERT INTO users SELECT * FROM users LIMIT 1;
EXCEPTION WHEN unique_violation THEN DELETE FROM secret_tokens;
END $$;
BEGIN; SAVEPOINT s; DELETE FROM users; ROLLBACK TO s; COMMIT;
SELECT '; \\! id', $$ `id` $$; -- \\! id
CREATE DATABASE old ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0;
\\c old
CREATE TABLE names AS SELECT 'M' || chr(252) || 'ller' AS name;
UPDATE names SET name = 'somebody' WHERE name = 'Müller';
"""
# Traps in production data for a superuser who cleans up, and for users who log in.
PREPARED = """
\\c my_db
CREATE ROLE mallory;
CREATE SCHEMA postgres;
CREATE FUNCTION postgres.format(text, name) RETURNS text LANGUAGE sql AS $$ SELECT 'CREATE ROLE hijacked' $$;
CREATE FUNCTION public.format(text, name) RETURNS text LANGUAGE sql AS $$ SELECT 'CREATE ROLE hijacked' $$;
GRANT EXECUTE ON FUNCTION pg_read_binary_file(text) TO PUBLIC;
"""


def test_a_script_that_handles_its_errors_runs_completely(service: Service, uploaded: int) -> None:
    service.ask("PATCH", f"/images/{uploaded}", {"anonymisation_script": PERMITTED})
    answer = service.finalise(uploaded)
    assert answer.status_code == 200, answer.text
    instance_id = int(service.create_instance(uploaded)["id"])
    assert service.answer(instance_id, "SELECT count(*) FROM secret_tokens") == "0"
    assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
    assert service.answer(instance_id, "SELECT name FROM names", "old") == "somebody"
    service.destroy_image(uploaded)


def test_cleaning_calls_no_code_of_the_data_and_leaves_no_access_open(service: Service, uploaded: int) -> None:
    service.ask("PATCH", f"/images/{uploaded}", {"anonymisation_script": f"{ANONYMISE}\n{PREPARED}"})
    answer = service.finalise(uploaded)
    assert answer.status_code == 200, answer.text
    instance_id = int(service.create_instance(uploaded)["id"])
    assert service.answer(instance_id, "SELECT count(*) FROM pg_roles WHERE rolname = 'hijacked'") == "0"
    assert service.answer(instance_id, "SELECT has_function_privilege('pg_read_binary_file(text)', 'EXECUTE')") == "f"
    service.destroy_image(uploaded)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_fails_anywhere_publishes_nothing(service: Service, uploaded: int, name: str) -> None:
    service.ask("PATCH", f"/images/{uploaded}", {"anonymisation_script": SCRIPTS[name]})
    detail = failed(service, uploaded)
    assert "anonymisation script" in detail
    assert ("psql tried to start a shell" in detail) is ("shell" in name)
    assert service.image(uploaded)["ready"] is False
    answer = service.ask("POST", "/instances", {"image_id": uploaded})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "image_not_ready"
    service.destroy_image(uploaded)


def test_a_failure_names_the_line_and_a_corrected_script_needs_no_second_upload(
    service: Service, uploaded: int
) -> None:
    service.ask(
        "PATCH", f"/images/{uploaded}", {"anonymisation_script": "\\c my_db\nSELECT 1;\nUPDATE nope SET x = 1;"}
    )
    detail = failed(service, uploaded)
    assert "anonymisation_script.sql:3" in detail
    assert "SQLSTATE 42P01 (undefined_table)" in detail
    answer = service.ask("PATCH", f"/images/{uploaded}", {"anonymisation_script": ANONYMISE})
    assert answer.status_code == 200
    assert service.finalise(uploaded).status_code == 200
    assert service.image(uploaded)["error"] is None
    service.destroy_image(uploaded)


def test_a_second_finalise_joins_the_first_and_a_third_finds_it_ready(service: Service, uploaded: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: service.finalise(uploaded), range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert service.finalise(uploaded).status_code == 200
    service.destroy_image(uploaded)


def await_status(service: Service, image_id: int, *wanted: str) -> str:
    deadline = time.monotonic() + 120
    while (status := service.image(image_id)["status"]) not in wanted:
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    return str(status)


def test_the_work_continues_when_the_client_goes_away(service: Service, uploaded: int) -> None:
    command = ["curl", "-s", "-m", "0.5", "-X", "POST", "-H", f"Authorization: Bearer {service.token}"]
    subprocess.run([*command, f"http://127.0.0.1:8432/images/{uploaded}/done"], check=False, timeout=10)
    assert await_status(service, uploaded, "ready", "failed") == "ready"
    service.destroy_image(uploaded)


def test_respond_async_answers_at_once_and_progress_can_be_watched(service: Service, uploaded: int) -> None:
    answer = service.finalise(uploaded, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert answer.json()["data"]["attributes"]["status"] == "finalising"
    steps: list[str] = []
    while (attributes := service.image(uploaded))["status"] == "finalising":
        progress = attributes["progress"]
        assert progress["seconds"] >= 0
        if progress["step"] not in steps:
            steps.append(progress["step"])
        time.sleep(0.02)
    assert attributes["status"] == "ready"
    assert set(steps) <= {"seal", "extract", "finalise", "publish", "trial"}
    assert len(steps) >= 3, steps
    service.destroy_image(uploaded)


def test_an_image_can_be_destroyed_while_it_is_being_finalised(service: Service, uploaded: int) -> None:
    service.ask("PATCH", f"/images/{uploaded}", {"anonymisation_script": "SELECT pg_sleep(600);"})
    service.finalise(uploaded, headers={"Prefer": "respond-async"})
    while (service.image(uploaded)["progress"] or {}).get("activity") != "running the anonymisation script":
        time.sleep(0.1)
    service.destroy_image(uploaded)
    assert service.ask("GET", f"/images/{uploaded}").status_code == 404


def test_the_command_line_shows_the_failure_and_fails(service: Service, uploaded: int) -> None:
    service.ask("PATCH", f"/images/{uploaded}", {"anonymisation_script": "SELECT 1/0;"})
    done = service.client("images", "finalise", str(uploaded), ok=False)
    assert done.returncode != 0
    assert "division_by_zero" in done.stderr
    service.client("images", "destroy", str(uploaded))


@pytest.mark.parametrize("others", [[], ["postgres"]])
def test_an_image_of_another_superuser_s_name_is_finalised(
    service: Service, source: Source, tmp_path: Path, others: list[str]
) -> None:
    """The bootstrap superuser may have another name than postgres, and postgres may be another role."""

    timeout = "transaction_timeout" if MAJOR >= 17 else "statement_timeout"

    def as_helper(*statements: str) -> None:
        connection = ["-h", str(source.directory), "-p", "5999", "-d", "postgres", "-U", "helper", "-Xq"]
        source._as_postgres("psql", *connection, *(part for each in statements for part in ("-c", each)))

    source.start()
    source.sql("CREATE ROLE helper SUPERUSER LOGIN")
    try:
        as_helper("ALTER ROLE postgres RENAME TO boss", *(f"CREATE ROLE {each} SUPERUSER LOGIN" for each in others))
        # Both would block the job, or end its sessions, if the job used the data's settings.
        as_helper("ALTER ROLE boss NOLOGIN", f"ALTER ROLE boss SET {timeout} = 1")
        source.stop()
        path = source.tarball(f"boss-{time.time_ns()}.tar")
    finally:
        source.start()
        as_helper(f"ALTER ROLE boss RESET {timeout}", "ALTER ROLE boss LOGIN")
        as_helper(*(f"DROP ROLE {each}" for each in others), "ALTER ROLE boss RENAME TO postgres")
        source.sql("DROP ROLE helper")
        source.stop()
    image_id = service.make_image(path)
    instance_id = int(service.create_instance(image_id)["id"])
    assert service.answer(instance_id, "SELECT current_user") == "draupnir"
    service.destroy_image(image_id)


# Each fails with a row of the data in its message, detail or context.
QUOTING = {
    "a duplicate key": "\\c my_db\nCREATE UNIQUE INDEX ON secret_tokens (token);",
    "a message": "\\c my_db\nDO $$ BEGIN RAISE EXCEPTION '%', (SELECT max(email) FROM users); END $$;",
    "a notice before": "\\c my_db\nDO $$ BEGIN RAISE WARNING '%', (SELECT max(email) FROM users); END $$; SELECT 1/0;",
    "a wrong number": "\\c my_db\nSELECT email::int FROM users;",
    "a constraint of its own": (
        "\\c my_db\nALTER TABLE users ADD CHECK (email = '') NOT VALID;\nUPDATE users SET name = 'x';"
    ),
    "psql itself": "\\c my_db\nSELECT max(email) AS address FROM users\n\\gset\n\\warn :address\n\\i :address",
    "the server's log": "\\c my_db\nDO $$ BEGIN RAISE LOG '%', (SELECT max(email) FROM users); END $$; SELECT 1/0;",
}


def test_a_row_that_an_error_quotes_reaches_neither_the_image_nor_a_journal(service: Service, uploaded: int) -> None:
    since = f"@{time.time():.6f}"
    for name, script in QUOTING.items():
        service.ask("PATCH", f"/images/{uploaded}", {"anonymisation_script": script})
        detail = failed(service, uploaded)
        assert "anonymisation_script.sql:" in detail, (name, detail)
        assert CANARY not in detail + json.dumps(service.image(uploaded)), name
    run("journalctl", "--sync")
    assert CANARY not in run("journalctl", "--namespace=*", "--no-pager", "-o", "json", "--since", since).stdout
    service.destroy_image(uploaded)


def test_the_error_of_a_failed_image_is_json_whatever_the_server_said(service: Service, uploaded: int) -> None:
    script = "DO $$ BEGIN RAISE EXCEPTION E'\\x1b[31mred \\n ünïcode %', repeat('long ', 3000); END $$;"
    service.ask("PATCH", f"/images/{uploaded}", {"anonymisation_script": script})
    detail = failed(service, uploaded)
    assert "\x1b" not in detail
    assert len(json.dumps(detail)) < 8000
    service.destroy_image(uploaded)
