"""No file of an image contains a value that the script removed, whatever kind of object had it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.backups import CANARY, Source
from tests.system.faults import configured
from tests.system.service import Service, run

CONTENT = f"""
CREATE TABLE people (id int PRIMARY KEY, email text UNIQUE, phone text, note text);
INSERT INTO people
  SELECT i, '{CANARY}-email-' || i, '{CANARY}-phone-' || i, '{CANARY}-note-' || i FROM generate_series(1, 20000) i;
CREATE INDEX ON people USING brin (phone);
CREATE INDEX ON people (lower(email));
CREATE TABLE documents (id int, body text, words tsvector);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
INSERT INTO documents SELECT i, repeat('{CANARY}-body-' || i, 200) FROM generate_series(1, 50) i;
CREATE INDEX ON documents USING gin (words) WITH (fastupdate = on);
INSERT INTO documents SELECT i, '', ('{CANARY}word' || i)::tsvector FROM generate_series(1, 30) i;
CREATE TABLE events (at date, who text) PARTITION BY RANGE (at);
CREATE TABLE events_2020 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
INSERT INTO events SELECT '2020-01-01'::date + i % 300, '{CANARY}-who-' || i FROM generate_series(1, 3000) i;
CREATE UNLOGGED TABLE sessions AS SELECT '{CANARY}-session-' || i AS token FROM generate_series(1, 500) i;
CREATE TABLE reloaded AS SELECT '{CANARY}-reloaded-' || i AS x FROM generate_series(1, 500) i;
CREATE TABLE cut AS SELECT i AS id, '{CANARY}-cut-' || i AS x FROM generate_series(1, 500) i;
CREATE TABLE and_back AS SELECT 1 AS id, 'same'::text AS x FROM generate_series(1, 500) i;
CREATE MATERIALIZED VIEW emails AS SELECT email FROM people;
CREATE TYPE kind AS ENUM ('{CANARY}-label', 'other');
CREATE STATISTICS pairs (mcv) ON email, phone FROM people;
SELECT lo_from_bytea(0, '{CANARY}-large');
COMMENT ON TABLE people IS '{CANARY}-comment';
CREATE ROLE "{CANARY}-role";
COMMENT ON ROLE "{CANARY}-role" IS '{CANARY}-of-role';
ALTER DATABASE my_db SET app.tenant = '{CANARY}-tenant';
CREATE EXTENSION postgres_fdw;
CREATE SERVER production FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{CANARY}-host');
CREATE USER MAPPING FOR PUBLIC SERVER production OPTIONS (password '{CANARY}-mapping');
CREATE TABLE newsletter AS SELECT i AS id, 'mail of {CANARY}-email-' || i AS line FROM generate_series(1, 20000) i;
CREATE TABLE untouched AS SELECT i, md5(i::text) AS x FROM generate_series(1, 20000) i;
VACUUM (ANALYZE);
"""
SCRIPT = f"""
\\c my_db
CREATE TABLE backup_of_people AS SELECT * FROM people;
DROP TABLE backup_of_people;
UPDATE newsletter SET line = '';
UPDATE people SET email = 'user' || id, note = NULL;
ALTER TABLE people DROP COLUMN phone;
UPDATE documents SET body = '', words = NULL;
UPDATE events SET who = 'somebody';
UPDATE sessions SET token = '';
ALTER TABLE cut DROP COLUMN x;
BEGIN; TRUNCATE reloaded; INSERT INTO reloaded SELECT 'new'; COMMIT;
UPDATE and_back SET x = '{CANARY}-for-a-moment';
UPDATE and_back SET x = 'same';
ALTER TYPE kind RENAME VALUE '{CANARY}-label' TO 'label';
SELECT lo_put(oid, 0, repeat('x', 18)::bytea) FROM pg_largeobject_metadata;
COMMENT ON TABLE people IS NULL;
COMMENT ON ROLE "{CANARY}-role" IS NULL;
DROP ROLE "{CANARY}-role";
ALTER DATABASE my_db RESET app.tenant;
ALTER SERVER production OPTIONS (SET host 'localhost');
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    made = Source.empty(tmp_path_factory.mktemp("residues"), "--locale=C.UTF-8")
    made.start()
    made.sql("CREATE DATABASE my_db", "postgres")
    made.script(CONTENT)
    return made


@pytest.fixture(scope="module")
def filenode(source: Source) -> str:
    return source.value("SELECT relfilenode FROM pg_class WHERE relname = 'untouched'")


@pytest.fixture(scope="module")
def masked(service: Service, source: Source, filenode: str) -> Iterator[int]:
    source.stop()
    assert files_with_canary(source.data), "the source has them, so the search works"
    image_id = service.create_image(SCRIPT)
    service.upload(image_id, source.tarball("residues.tar.zst", "--zstd"))
    answer = service.finalise(image_id)
    assert answer.status_code == 200, answer.text
    yield image_id
    service.destroy_image(image_id)


def files_with_canary(directory: Path) -> list[str]:
    found = run("grep", "-rlaF", CANARY, directory, ok=False)
    assert found.returncode in {0, 1}, found.stderr
    return found.stdout.splitlines()


def published(image_id: int) -> Path:
    return Path(f"/srv/draupnir/image_snapshots/{image_id}")


def test_no_file_of_the_image_contains_a_removed_value(masked: int) -> None:
    assert files_with_canary(published(masked)) == []


def test_a_table_that_the_script_did_not_change_is_not_rewritten(service: Service, masked: int, filenode: str) -> None:
    instance_id = int(service.create_instance(masked)["id"])
    found = service.answer(
        instance_id, "SELECT relname, relfilenode FROM pg_class WHERE relname IN ('people', 'untouched')"
    )
    service.destroy_instance(instance_id)
    assert f"untouched|{filenode}" in found
    assert "people|" in found


def test_a_canary_in_a_file_fails_the_image_and_an_absent_one_does_not(
    service: Service, source: Source, masked: int, tmp_path: Path
) -> None:
    script, canaries = tmp_path / "anonymise.sql", tmp_path / "canaries"
    script.write_text(SCRIPT.replace("ALTER TABLE people DROP COLUMN phone;", ""))
    canaries.write_text(f"{CANARY}-email-77\n{CANARY}-phone-19999\n")
    made = service.client("--output", "json", "images", "create", "now", str(script), "--canary-file", str(canaries))
    image_id = int(json.loads(made.stdout)["id"])
    service.upload(image_id, source.tarball("residues.tar.zst", "--zstd"))
    answer = service.finalise(image_id)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["code"] == "canary_found", error
    assert "public.people in database my_db" in error["detail"]
    assert f"{CANARY}-phone-19999" not in answer.text + service.ask("GET", f"/images/{image_id}").text
    script.write_text(SCRIPT)
    service.client("images", "update", str(image_id), "--script", str(script))
    assert service.finalise(image_id).status_code == 200
    rows = service.ask("GET", f"/images/{image_id}/report").json()["data"]["attributes"]["rows"]
    assert "2 canaries" in next(row["detail"] for row in rows if row["code"] == "canaries_absent")
    service.destroy_image(image_id)


def test_a_value_that_another_column_keeps_fails_the_image_unless_the_script_declares_it(
    service: Service, source: Source, masked: int
) -> None:
    undeclared = SCRIPT.replace("UPDATE newsletter SET line = '';", "")
    image_id = service.create_image(undeclared)
    service.upload(image_id, source.tarball("residues.tar.zst", "--zstd"))
    answer = service.finalise(image_id)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["code"] == "value_kept", error
    assert "my_db.public.people.email lost values that my_db.public.newsletter.line contains" in error["detail"]
    assert CANARY not in answer.text + service.ask("GET", f"/images/{image_id}/report").text
    declared = f"-- draupnir: keeps my_db.public.newsletter.line\n{undeclared}"
    service.ask("PATCH", f"/images/{image_id}", {"anonymisation_script": declared})
    assert service.finalise(image_id).status_code == 200
    rows = service.ask("GET", f"/images/{image_id}/report").json()["data"]["attributes"]["rows"]
    assert "sampled values" in next(row["detail"] for row in rows if row["code"] == "values_kept")
    assert "no file of the image contains one" in next(r["detail"] for r in rows if r["code"] == "originals_absent")
    assert len([path for path in (published(image_id) / "pg_wal").iterdir() if path.is_file()]) == 1
    instance_id = int(service.create_instance(image_id)["id"])
    assert service.answer(instance_id, "SELECT count(*) FROM newsletter") == "20000"
    service.destroy_instance(instance_id)
    service.destroy_image(image_id)


def test_an_image_may_keep_residue_if_the_operator_allows_it(service: Service, source: Source, tmp_path: Path) -> None:
    script = tmp_path / "anonymise.sql"
    script.write_text(SCRIPT)
    creation = ("--output", "json", "images", "create", "now", str(script), "--keep-residue")
    assert "allow_residue" in service.client(*creation, ok=False).stderr
    with configured(service, "allow_residue = true\nallow_superuser = true\n"):
        image_id = int(json.loads(service.client(*creation).stdout)["id"])
        service.upload(image_id, source.tarball("residues.tar.zst", "--zstd"))
        answer = service.finalise(image_id)
        superuser = service.ask("POST", "/instances", {"image_id": image_id, "superuser": True})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]["attributes"]["proved"] is False
    assert superuser.json()["errors"][0]["code"] == "image_not_proved"
    rows = service.ask("GET", f"/images/{image_id}/report").json()["data"]["attributes"]["rows"]
    assert rows[0]["code"] == "residue_kept"
    assert files_with_canary(published(image_id)), "the search finds what is there"
    assert len([path for path in (published(image_id) / "pg_wal").iterdir() if path.is_file()]) == 1
    service.destroy_image(image_id)


def test_the_image_holds_no_log_statistics_or_files_of_no_relation(masked: int) -> None:
    directory = published(masked)
    assert len([path for path in (directory / "pg_wal").iterdir() if path.is_file()]) == 1
    for name in ("pg_stat", "pg_stat_tmp", "pg_replslot", "pg_notify", "pg_logical/snapshots", "pg_logical/mappings"):
        assert list((directory / name).iterdir()) == [], name
    assert not [path for path in directory.rglob("*") if path.name.startswith((".", "pgsql_tmp", "pg_internal"))]
