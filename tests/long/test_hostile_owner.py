"""An owner who uses all resources of an instance does not affect others: the neighbour's queries continue."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hostile.superuser import become_superuser
from tests.system import world
from tests.system.faults import await_that, processes
from tests.system.service import Service, run

SPINS = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$"
GROWS = """
SET work_mem = '1TB'; SET hash_mem_multiplier = 1000; SET max_parallel_workers_per_gather = 8;
SELECT count(*) FROM (SELECT array_agg(repeat(md5(i::text), 30000)) FROM generate_series(1, 100000) i) x
"""
FORKS = "SET max_parallel_workers_per_gather = 1024; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;"
FORKS += "SET min_parallel_table_scan_size = 0; SELECT count(*) FROM big a, big b, big c"
DROPS = "DO $$ DECLARE r regclass; BEGIN FOR r IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace ="
DROPS += " 'public'::regnamespace LOOP EXECUTE format('DROP TABLE IF EXISTS %s CASCADE', r); END LOOP; END $$"


@contextmanager
def sessions(service: Service, instance_id: int, count: int, sql: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Run `count` psql processes with the same statement, and end them afterwards."""
    environment = {**service.environment(instance_id), "PGDATABASE": "my_db", "PGCONNECT_TIMEOUT": "60"}
    found = [
        subprocess.Popen(
            ["psql", "-XAtqc", sql],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    try:
        yield found
    finally:
        for each in found:
            each.kill()
            each.communicate()


def backends(instance_id: int) -> int:
    return len(processes(f"draupnir-instance-{instance_id}.service"))


@pytest.fixture
def hog(service: Service, image: int, _unharmed: None) -> Iterator[int]:
    """Provide the greedy instance; after its destruction, check the neighbour and the machine."""
    instance_id = int(service.create_instance(image)["id"])
    service.answer(instance_id, "CREATE TABLE big AS SELECT generate_series(1, 20000) i")
    yield instance_id
    service.ask("DELETE", f"/instances/{instance_id}")


def neighbour_works(service: Service, neighbour: int) -> None:
    for _ in range(5):
        assert service.answer(neighbour, "SELECT count(*) FROM users") == "5000"
        service.answer(neighbour, "CREATE TABLE t AS SELECT * FROM users; DROP TABLE t")


def test_an_instance_cannot_use_connections_of_another(service: Service, neighbour: int, hog: int) -> None:
    with sessions(service, hog, 110, "SELECT pg_sleep(3600)") as found:
        await_that(lambda: sum(each.poll() is not None for each in found) >= 5, "some are turned away")
        neighbour_works(service, neighbour)


def test_endless_calculations_leave_the_neighbour_its_share(service: Service, neighbour: int, hog: int) -> None:
    with sessions(service, hog, 8, SPINS):
        await_that(lambda: backends(hog) > 12, "they run")
        neighbour_works(service, neighbour)


def test_queries_that_take_all_memory_end_and_the_neighbour_continues(
    service: Service, neighbour: int, hog: int
) -> None:
    with sessions(service, hog, 3, GROWS):
        neighbour_works(service, neighbour)
        # Do not wait for the kernel to kill them; a test machine may lack the limits.
    assert run("systemctl", "is-active", "draupnir", "draupnir-helper", "draupnir-metadata").stdout == "active\n" * 3


def test_parallel_workers_without_end_are_bounded(service: Service, neighbour: int, hog: int) -> None:
    with sessions(service, hog, 4, FORKS):
        await_that(lambda: backends(hog) > 8, "they run")
        neighbour_works(service, neighbour)
        assert backends(hog) < 512


def test_dropping_everything_affects_only_the_own_instance(service: Service, neighbour: int, hog: int) -> None:
    service.answer(hog, DROPS)
    service.psql(hog, "DROP DATABASE my_db WITH (FORCE)", "postgres", ok=False)
    neighbour_works(service, neighbour)


def test_a_superuser_who_ruins_the_data_can_still_be_destroyed(service: Service, neighbour: int, hog: int) -> None:
    """The superuser overwrites files, and prevents Postgres from starting."""
    become_superuser(service, hog)
    service.psql(hog, "COPY (SELECT 'nonsense = true') TO '/srv/pgdata/postgresql.auto.conf'")
    service.psql(hog, "COPY (SELECT repeat('x', 8192)) TO '/srv/pgdata/global/pg_control'")
    service.psql(hog, "COPY (SELECT 1) TO '/srv/pgdata/PG_VERSION'")
    run("systemctl", "kill", "--signal=KILL", f"draupnir-instance-{hog}.service")
    assert service.psql(hog, "SELECT 1", ok=False, PGCONNECT_TIMEOUT="10").returncode != 0
    neighbour_works(service, neighbour)
    service.destroy_instance(hog)


def test_a_million_files_and_deep_directories_do_not_stay(service: Service, neighbour: int, hog: int) -> None:
    top = world.DATA / f"instances/{hog}"
    uid = top.stat().st_uid
    program = (
        "import os, sys\nos.chdir(sys.argv[1])\n"
        "for number in range(20000): open(f'file-{number}', 'x').close()\n"
        "for _ in range(2000):\n    os.mkdir('d'); os.chdir('d')\n"
    )
    identity = [f"--reuid={uid}", f"--regid={uid}", "--groups=draupnir-data"]
    run("setpriv", *identity, "python3", "-c", program, top, cwd="/")
    neighbour_works(service, neighbour)
    service.destroy_instance(hog)
    await_that(lambda: not any((world.DATA / "trash").iterdir()), "the trash is empty")


def test_session_settings_do_not_affect_others(service: Service, neighbour: int, hog: int) -> None:
    for statement in (
        "ALTER ROLE draupnir SET statement_timeout = 1",
        "ALTER DATABASE my_db SET default_transaction_read_only = on",
        "ALTER ROLE draupnir NOLOGIN",
        "ALTER ROLE draupnir CONNECTION LIMIT 0",
        "ALTER DATABASE my_db ALLOW_CONNECTIONS false",
    ):
        service.psql(hog, statement, "postgres", ok=False)
    neighbour_works(service, neighbour)


def test_rapid_creation_and_destruction_does_not_affect_others(service: Service, neighbour: int, image: int) -> None:
    made = [int(service.create_instance(image)["id"]) for _ in range(4)]
    with sessions(service, made[0], 5, "SELECT pg_sleep(3600)"):
        for instance_id in made:
            service.destroy_instance(instance_id)
    neighbour_works(service, neighbour)
    assert not any((Path("/run/draupnir/instances") / str(each)).exists() for each in made)
