"""The warm pool: a creation is a claim, no instance is assigned twice, and the pool never blocks users."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.conftest import CONFIGURATION
from tests.system.faults import await_that, filled, low_mib
from tests.system.service import Service, run

SIZE = 3


@pytest.fixture
def pool(service: Service, image: int) -> Iterator[int]:
    """Provide the session's image with a pool of three, which is removed at the end."""
    with configured(f"pool_size = {SIZE}"):
        await_pool(SIZE)
        yield image


@contextmanager
def configured(lines: str) -> Iterator[None]:
    """Configure the service with these lines during the block, instead of the line that disables the pool."""
    before = CONFIGURATION.read_text()
    CONFIGURATION.write_text(before.replace("pool_size = 0", lines))
    run("systemctl", "restart", "draupnir-helper", "draupnir")
    try:
        yield
    finally:
        CONFIGURATION.write_text(before)
        run("systemctl", "restart", "draupnir-helper", "draupnir")
        await_pool(0)


def metadata(query: str) -> list[str]:
    connection = ["-h", "/run/draupnir-metadata", "-d", "draupnir"]
    return run("runuser", "-u", "draupnir", "--", "psql", "-XAtq", *connection, "-c", query, cwd="/").stdout.split()


def pooled_ids() -> set[int]:
    return set(map(int, metadata("SELECT id FROM instances WHERE purpose = 'pool' AND status = 'running'")))


def await_pool(size: int, within_s: float = 60) -> set[int]:
    deadline = time.monotonic() + within_s
    while len(found := pooled_ids()) != size or metadata("SELECT id FROM instances WHERE status <> 'running'"):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def destroy_all(service: Service) -> None:
    for item in service.ask("GET", "/instances").json()["data"]:
        service.destroy_instance(item["id"])


def test_an_instance_comes_from_the_pool_and_the_pool_is_refilled(service: Service, pool: int) -> None:
    ready = pooled_ids()
    assert service.ask("GET", "/instances").json()["data"] == [], "the pool is not listed"
    instance_id = int(service.create_instance(pool)["id"])
    assert instance_id in ready
    assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
    assert (
        f"instance {instance_id} of image {pool} for upload"
        in run("systemctl", "show", "-P", "Description", f"draupnir-instance-{instance_id}").stdout
    )
    assert instance_id not in await_pool(SIZE)
    destroy_all(service)


def test_ten_concurrent_requests_get_ten_instances_from_any_pool(service: Service, pool: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        made = list(threads.map(lambda _: service.create_instance(pool), range(10)))
        ids = {int(data["id"]) for data in made}
        assert len(ids) == 10
        assert len({data["attributes"]["port"] for data in made}) == 10
        answers = list(threads.map(lambda each: service.answer(each, "SELECT count(*) FROM users"), ids))
    assert answers == ["5000"] * 10
    destroy_all(service)


def test_the_pool_survives_the_daemon(service: Service, pool: int) -> None:
    before = pooled_ids()
    run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "draupnir")
    run("systemctl", "restart", "draupnir", "draupnir-helper")
    assert await_pool(SIZE) == before


def test_an_image_is_destroyed_in_spite_of_its_pool(service: Service, pool: int, backup: Path) -> None:
    newer = service.make_image(backup)
    deadline = time.monotonic() + 60
    while metadata(f"SELECT count(*) FROM instances WHERE image_id = {newer} AND status = 'running'") != [str(SIZE)]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert service.ask("DELETE", f"/images/{newer}").status_code == 204
    await_pool(SIZE)


def test_an_image_destroyed_while_its_pool_is_being_made_leaves_nothing(
    service: Service, pool: int, backup: Path
) -> None:
    newer = service.make_image(backup)
    await_that(
        lambda: metadata(f"SELECT id FROM instances WHERE image_id = {newer} AND purpose = 'pool'"), "one is made"
    )
    assert service.ask("DELETE", f"/images/{newer}").status_code == 204
    assert metadata(f"SELECT id FROM instances WHERE image_id = {newer}") == []
    await_pool(SIZE)


def test_a_pool_larger_than_the_port_range_yields_to_users(service: Service, image: int) -> None:
    with configured("pool_size = 10\nmin_instance_port = 7400\nmax_instance_port = 7404"):
        await_pool(4)
        ordered = service.ask("POST", "/instances", {"image_id": image, "sleep_after": 0})
        assert ordered.status_code == 201, ordered.text
        ids = {int(ordered.json()["data"]["id"]), *(int(service.create_instance(image)["id"]) for _ in range(3))}
        answer = service.ask("POST", "/instances", {"image_id": image})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["code"] == "no_free_port"
        assert [service.answer(each, "SELECT count(*) FROM users") for each in ids] == ["5000"] * 4
        destroy_all(service)
        await_pool(4)


def test_a_pool_gives_the_disk_back_when_it_gets_full_and_creating_continues(service: Service, pool: int) -> None:
    with filled(leaving_mib=low_mib() * 3 // 2):
        await_pool(0)
        instance_id = int(service.create_instance(pool)["id"])
        assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
    await_pool(SIZE)
    assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
    destroy_all(service)


@pytest.mark.parametrize("moment_s", [0.0, 0.3, 0.8, 1.5])
def test_a_daemon_killed_around_a_claim_and_its_refill_gives_nothing_twice(
    service: Service, pool: int, moment_s: float
) -> None:
    first = int(service.create_instance(pool)["id"])
    # Moments of a background refill; the law holds for any of them.
    time.sleep(moment_s)
    os.kill(int(run("systemctl", "show", "-P", "MainPID", "draupnir").stdout), signal.SIGKILL)
    deadline = time.monotonic() + 30
    while run("curl", "-sf", "http://127.0.0.1:8432/health_check", ok=False).returncode != 0:
        assert time.monotonic() < deadline
    second = int(service.create_instance(pool)["id"])
    assert first != second
    assert service.answer(first, "SELECT count(*) FROM users") == "5000"
    assert service.answer(second, "SELECT count(*) FROM users") == "5000"
    await_pool(SIZE)
    destroy_all(service)


def test_other_shapes_are_cold_starts(service: Service, pool: int) -> None:
    ready = pooled_ids()
    answer = service.ask("POST", "/instances", {"image_id": pool, "sleep_after": 0})
    assert answer.status_code == 201
    assert answer.json()["data"]["attributes"]["sleep_after"] == 0
    assert int(answer.json()["data"]["id"]) not in ready
    destroy_all(service)
