"""A cluster as production has them becomes an image with its sizes, its tablespaces and only its data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.backups import Source
from tests.system.service import Service, run

SIZES = {
    "max_connections": 500,
    "max_locks_per_transaction": 1024,
    "max_prepared_transactions": 50,
    "max_worker_processes": 12,
}
CONTENT = """
CREATE EXTENSION pg_stat_statements;
CREATE TABLE plain AS SELECT generate_series(1, 100) AS x;
CREATE TABLE fast (x int) TABLESPACE ssd;
CREATE INDEX ON fast (x) TABLESPACE ssd;
INSERT INTO fast SELECT generate_series(1, 1000);
CREATE DATABASE elsewhere TABLESPACE ssd;
CREATE SUBSCRIPTION feed CONNECTION 'host=10.9.8.7' PUBLICATION p WITH (connect = false);
SELECT pg_replication_origin_create('feed');
SELECT pg_replication_origin_session_setup('feed');
CHECKPOINT;
BEGIN;
SELECT pg_replication_origin_xact_setup('0/ABCD', now());
INSERT INTO plain VALUES (101);
COMMIT;
CREATE FUNCTION audit() RETURNS event_trigger LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE EVENT TRIGGER audit ON ddl_command_end EXECUTE FUNCTION audit();
UPDATE pg_proc SET probin = '$libdir/pgaudit' WHERE proname = 'audit';
\\c elsewhere
CREATE TABLE rows AS SELECT generate_series(1, 10) AS x;
"""


class Production(Source):
    """Large WAL segments, large sizes, a tablespace, a subscription that has applied rows, and files of its owner."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.data = directory, directory / "var/lib/postgresql/17/main"
        for path in (directory, *directory.parents[:2]):
            path.chmod(0o755)
        run("install", "-d", "-o", "postgres", directory / "ssd", self.data, directory / "sockets")
        run("chown", "-R", "postgres", directory)
        self._as_postgres("initdb", "-D", self.data, "-A", "trust", "--locale=C.UTF-8", "--wal-segsize=64")
        lines = [f"{name} = {value}" for name, value in SIZES.items()]
        lines += ["min_wal_size = 256MB", "wal_level = logical", "track_commit_timestamp = on"]
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")
        for name in (".pgpass", "server.key", "dump.sql"):
            (self.data / name).write_text("secret")
        (directory / "var/lib/postgresql/.psql_history").write_text("secret")
        self.start()
        self.sql(f"CREATE TABLESPACE ssd LOCATION '{directory}/ssd'", "postgres")
        self.sql("CREATE DATABASE my_db", "postgres")
        self.script(CONTENT)

    def crash(self) -> None:
        self._as_postgres("pg_ctl", "-D", self.data, "-w", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    made = Production(tmp_path_factory.mktemp("with_sizes"))
    yield made
    shutil.rmtree(made.directory)  # its log has large segments


@pytest.fixture(scope="module")
def images(service: Service, production: Production) -> Iterator[list[int]]:
    """The image of a crash copy, packed with tar --dereference, and that of a base backup."""
    base = production.directory / "base"
    connection = ["-h", production.directory, "-p", "5999"]
    production._as_postgres("pg_basebackup", "-c", "fast", "-Ft", "-z", *connection, "-D", base)
    production.crash()
    copy = production.tarball("copy.tar.zst", "--zstd", "--dereference", base=production.directory, members="var")
    found = []
    for files in ([copy], sorted(base.iterdir())):
        image_id = service.create_image(script="SELECT 1;")
        service.upload(image_id, *files)
        answer = service.finalise(image_id)
        assert answer.status_code == 200, answer.text
        found.append(image_id)
    yield found
    for image_id in found:
        service.destroy_image(image_id)


@pytest.fixture(scope="module")
def instances(service: Service, images: list[int]) -> Iterator[list[int]]:
    found = [int(service.create_instance(image_id)["id"]) for image_id in images]
    for instance_id in found:
        service.psql(instance_id, "SELECT 1")
    yield found
    for instance_id in found:
        service.destroy_instance(instance_id)


def test_tables_and_databases_in_a_tablespace_are_whole(service: Service, instances: list[int]) -> None:
    for instance_id in instances:
        assert service.answer(instance_id, "SELECT count(*) FROM fast") == "1000"
        assert service.answer(instance_id, "SET enable_seqscan = off; SELECT x FROM fast WHERE x = 77") == "77"
        assert service.answer(instance_id, "SELECT count(*) FROM rows", "elsewhere") == "10"
        assert service.answer(instance_id, "SELECT spcname FROM pg_tablespace WHERE oid > 16383") == "ssd"
        service.psql(instance_id, "CREATE TABLE more AS SELECT * FROM fast")


def test_an_event_trigger_of_a_missing_library_hinders_nobody(service: Service, instances: list[int]) -> None:
    """The event trigger is like that of pgaudit, which is not installed."""
    for instance_id in instances:
        service.psql(instance_id, "CREATE TABLE made (x int); DROP TABLE made")


def test_an_instance_has_the_sizes_of_the_source(service: Service, instances: list[int]) -> None:
    for instance_id in instances:
        for name, value in SIZES.items():
            assert service.answer(instance_id, f"SHOW {name}") == str(value)
        assert service.answer(instance_id, "SHOW wal_segment_size") == "64MB"
        assert service.answer(instance_id, "SHOW track_commit_timestamp") == "on"


def test_a_crash_copy_of_a_subscriber_keeps_what_it_applied_and_loses_the_subscription(
    service: Service, instances: list[int]
) -> None:
    crashed, _ = instances
    assert service.answer(crashed, "SELECT max(x) FROM plain") == "101"
    assert service.answer(crashed, "SELECT count(*) FROM pg_subscription") == "0"
    assert service.answer(crashed, "SHOW max_replication_slots") == "0"


def test_the_library_of_an_extension_of_the_data_is_preloaded(service: Service, instances: list[int]) -> None:
    for instance_id in instances:
        assert service.answer(instance_id, "SELECT count(*) FROM pg_stat_statements").isdigit()


def test_files_that_postgres_does_not_know_are_reported_and_dropped(service: Service, images: list[int]) -> None:
    crashed, _ = images
    found = service.ask("GET", f"/images/{crashed}/report").json()["data"]["attributes"]["rows"]
    dropped = {row["object"] for row in found if row["code"] == "file_dropped"}
    assert dropped == {".pgpass", "server.key", "dump.sql", "var/lib/postgresql/.psql_history"}
    for image_id in images:
        names = {path.name for path in Path(f"/srv/draupnir/image_snapshots/{image_id}").iterdir()}
        assert not names & {".pgpass", "server.key", "dump.sql", "postgresql.conf"}
