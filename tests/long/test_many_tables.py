"""A database of 20,000 tables becomes an image; its instances dump and drop all of them in one transaction."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.backups import Source
from tests.system.faults import await_that
from tests.system.service import Service, run

TABLES = 20_000
CREATE = f"""
CREATE ROLE app LOGIN;
DO $$ BEGIN
  FOR i IN 1..{TABLES} LOOP
    EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, text text)', i);
    EXECUTE format('ALTER TABLE t%s OWNER TO app', i);
    EXECUTE format('INSERT INTO t%1$s VALUES (1, ''Jane Doe, number %1$s'')', i);
    IF i % 200 = 0 THEN COMMIT; END IF;
  END LOOP;
END $$;
"""
# All in one transaction, as a script that drops what nobody needs.
SCRIPT = """
\\c dropped
DROP OWNED BY app;
\\c my_db
UPDATE t1 SET text = 'by the script';
UPDATE t2 SET text = NULL;
TRUNCATE t3;
"""


@pytest.fixture(scope="module")
def image(service: Service) -> Iterator[int]:
    # /tmp is too small.
    source = Source.empty(Path("/var/tmp/many_tables"), "--locale=C.UTF-8")
    with (source.data / "postgresql.conf").open("a") as file:
        file.write("fsync = off\nmax_locks_per_transaction = 256\nautovacuum = off\n")
    source.start()
    source.sql("CREATE DATABASE my_db", "postgres")
    source.script(CREATE)
    source.sql("CREATE DATABASE dropped TEMPLATE my_db", "postgres")
    # The sizes of the source alone would not do.
    source.sql("ALTER SYSTEM SET max_locks_per_transaction = 64", "postgres")
    source.stop()
    source.start()
    source.stop()
    backup = source.tarball("many.tar.zst", "--zstd")
    image_id = service.create_image(SCRIPT)
    service.upload(image_id, backup)
    shutil.rmtree(source.directory)
    service.finalise(image_id, headers={"Prefer": "respond-async"})
    await_that(lambda: service.image(image_id)["status"] != "finalising", "the image is ready", within_s=1200)
    assert service.image(image_id)["ready"], service.image(image_id)
    yield image_id
    service.destroy_image(image_id)


def test_all_tables_can_be_dumped_in_one_transaction(service: Service, image: int) -> None:
    instance_id = int(service.create_instance(image)["id"])
    for role in ("draupnir", "app"):
        printed = service.client("env", "--role", role, "--format", "url", "--database", "my_db", str(instance_id))
        dump = run("pg_dump", "--schema-only", printed.stdout.strip()).stdout
        assert dump.count("CREATE TABLE ") == TABLES
        assert dump.count("OWNER TO app") == TABLES
    assert service.answer(instance_id, "SELECT text FROM t1") == "by the script"
    assert (
        service.answer(instance_id, "SELECT count(*) FROM pg_class WHERE relowner = 'app'::regrole", "dropped") == "0"
    )
    service.destroy_instance(instance_id)


def test_only_changed_tables_are_rewritten(service: Service, image: int) -> None:
    rows = service.ask("GET", f"/images/{image}/report").json()["data"]["attributes"]["rows"]
    (rewritten,) = (row["detail"] for row in rows if row["code"] == "tables_rewritten" and row["database"] == "my_db")
    assert rewritten.startswith("3 tables")
    (proved,) = (row["detail"] for row in rows if row["code"] == "originals_absent")
    assert f"{2 * TABLES} values" in proved


def test_all_tables_can_be_dropped_in_one_transaction(service: Service, image: int) -> None:
    instance_id = int(service.create_instance(image)["id"])
    service.psql(instance_id, "DROP OWNED BY app")
    assert service.answer(instance_id, "SELECT count(*) FROM pg_class WHERE relowner = 'app'::regrole") == "0"
    service.destroy_instance(instance_id)
