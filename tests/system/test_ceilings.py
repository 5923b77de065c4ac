"""What an instance, an upload or a job may write has a ceiling; at that it goes on, and so does a neighbour."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system import world
from tests.system.faults import await_that
from tests.system.service import Service, run

MIB = 1024 * 1024
MAX_BYTES = 200 * MIB
# About 1 kB a row, in statements of a few MiB each, until one is refused.
FILL = "INSERT INTO filler SELECT i, repeat(md5(i::text), 32) FROM generate_series(1, 8000) i"


def create(service: Service, image_id: int, max_bytes: int | None = MAX_BYTES) -> int:
    """An instance with that ceiling."""
    answer = service.ask("POST", "/instances", {"image_id": image_id} | ({"max_bytes": max_bytes} if max_bytes else {}))
    assert answer.status_code == 201, answer.text
    return int(answer.json()["data"]["id"])


def attributes(service: Service, instance_id: int) -> dict[str, Any]:
    answer = service.ask("GET", f"/instances/{instance_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["data"]["attributes"]
    return found


def groups() -> dict[str, int]:
    """The quota groups of the data disk that say where they stand: id → limit, 0 for none."""
    rows = run("btrfs", "qgroup", "show", "--raw", "-r", world.DATA).stdout.splitlines()[2:]
    return {row.split()[0]: int(row.split()[3]) if row.split()[3] != "none" else 0 for row in rows}


def group(instance_id: int) -> str:
    return f"1/{2**26 + instance_id}"


@pytest.fixture
def neighbour(service: Service, image: int) -> Iterator[int]:
    """Another instance, which answers before and after, and can write."""
    instance_id = create(service, image, None)
    yield instance_id
    service.psql(instance_id, "CREATE TABLE of_mine AS SELECT 1")
    assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
    service.destroy_instance(instance_id)


@contextmanager
def small(service: Service, image_id: int) -> Iterator[int]:
    """An instance of 200 MiB, with a table to fill; destroyed at the end, and its quota group with it."""
    instance_id = create(service, image_id)
    try:
        service.psql(instance_id, "CREATE TABLE filler (i integer, t text)")
        yield instance_id
    finally:
        service.destroy_instance(instance_id)
    await_that(lambda: group(instance_id) not in groups(), "its quota group is gone", within_s=60)


def fill_up(service: Service, instance_id: int, sql: str = FILL) -> str:
    """Run the statement until it is refused; what it was refused with."""
    for _ in range(2000):
        done = service.psql(instance_id, sql, ok=False)
        if done.returncode != 0:
            return str(done.stderr)
    raise AssertionError("nothing stopped it")


def test_an_instance_at_its_ceiling_is_read_only_until_there_is_room(
    service: Service, image: int, neighbour: int
) -> None:
    with small(service, image) as instance_id:
        assert attributes(service, instance_id)["max_bytes"] == MAX_BYTES
        assert attributes(service, instance_id)["written_bytes"] < MAX_BYTES
        said = fill_up(service, instance_id)
        assert "read-only transaction" in said or "Disk quota exceeded" in said, said
        await_that(lambda: attributes(service, instance_id)["status"] == "full", "it is full")
        assert attributes(service, instance_id)["written_bytes"] >= MAX_BYTES * 0.9
        assert "read-only transaction" in service.psql(instance_id, "CREATE TABLE more (i integer)", ok=False).stderr
        assert int(service.answer(instance_id, "SELECT count(*) FROM filler")) > 0, "it can be read"
        service.psql(instance_id, "SET transaction_read_only = off; TRUNCATE filler")
        service.psql(instance_id, "VACUUM FULL users")
        await_that(lambda: attributes(service, instance_id)["status"] == "running", "it has room", within_s=120)
        service.psql(instance_id, "INSERT INTO filler SELECT 1, 'again'")


def test_subvolumes_that_an_instance_nests_are_below_its_ceiling(service: Service, image: int) -> None:
    with small(service, image) as instance_id:
        before = attributes(service, instance_id)["written_bytes"]
        top = world.DATA / f"instances/{instance_id}"
        user = f"draupnir-i{instance_id}"
        run(
            "setpriv",
            f"--reuid={user}",
            f"--regid={user}",
            "--clear-groups",
            "btrfs",
            "subvolume",
            "create",
            top / "in",
        )
        nested = top / "in/file"
        run("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "fallocate", "-l", "20M", nested)
        await_that(lambda: attributes(service, instance_id)["written_bytes"] >= before + 20 * MIB, "it counts")


def test_an_instance_may_ask_for_no_more_than_there_is(service: Service, image: int) -> None:
    answer = service.ask("POST", "/instances", {"image_id": image, "max_bytes": 2**50})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "ceiling_too_high")
    answer = service.ask("POST", "/instances", {"image_id": image, "max_bytes": 1000})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "invalid_request")


def test_whoever_asks_for_nothing_gets_a_ceiling(service: Service, neighbour: int) -> None:
    found = attributes(service, neighbour)
    assert MAX_BYTES < found["max_bytes"] < groups()[group(neighbour)]
    assert 0 < found["written_bytes"] < found["max_bytes"]


@pytest.mark.parametrize("client", [("instances", "create"), ("new",)], ids=["create", "new"])
def test_the_client_asks_for_a_ceiling_and_shows_it(service: Service, image: int, client: tuple[str, ...]) -> None:
    of = [str(image)] if client[-1] == "create" else []
    service.client(*client, *of, "--max-bytes", "150M")
    (instance_id,) = [
        line.split()[0] for line in service.client("instances", "list").stdout.splitlines() if line[0].isdigit()
    ]
    assert " of 157.3 MB" in service.client("instances", "show", instance_id).stdout
    service.destroy_instance(int(instance_id))


def test_an_upload_has_a_ceiling(service: Service, tmp_path: Path) -> None:
    image_id = service.create_image()
    try:
        assert groups()[f"1/{2 * 2**26 + image_id}"] > MAX_BYTES
    finally:
        service.destroy_image(image_id)
