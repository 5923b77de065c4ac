"""Instances, uploads and jobs have a write limit; at the limit an instance keeps running, and so do others."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import daemon
from tests.system import world
from tests.system.backups import MAJOR, Source
from tests.system.faults import await_that, configured, filled, low_mib
from tests.system.service import Service, run

MIB = 1024 * 1024
MAX_BYTES = 200 * MIB
# Rows of about 1 kB, in statements of a few MiB, until one is refused.
FILL = "INSERT INTO filler SELECT i, repeat(md5(i::text), 32) FROM generate_series(1, 8000) i"


def create(service: Service, image_id: int, max_bytes: int | None = MAX_BYTES) -> int:
    """Create an instance with that ceiling."""
    answer = service.ask("POST", "/instances", {"image_id": image_id} | ({"max_bytes": max_bytes} if max_bytes else {}))
    assert answer.status_code == 201, answer.text
    return int(answer.json()["data"]["id"])


def attributes(service: Service, instance_id: int) -> dict[str, Any]:
    answer = service.ask("GET", f"/instances/{instance_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["data"]["attributes"]
    return found


def groups() -> dict[str, int]:
    """Return the quota groups of the data disk: id → limit, 0 for none."""
    rows = run("btrfs", "qgroup", "show", "--raw", "-r", world.DATA).stdout.splitlines()[2:]
    return {row.split()[0]: int(row.split()[3]) if row.split()[3] != "none" else 0 for row in rows}


def group(instance_id: int) -> str:
    return f"1/{2**26 + instance_id}"


@pytest.fixture
def neighbour(service: Service, image: int) -> Iterator[int]:
    """Provide another instance, and check that it answers and can write before and after."""
    instance_id = create(service, image, None)
    yield instance_id
    service.psql(instance_id, "CREATE TABLE of_mine AS SELECT 1")
    assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
    service.destroy_instance(instance_id)


@contextmanager
def small(service: Service, image_id: int) -> Iterator[int]:
    """Provide an instance of 200 MiB, with a table to fill; destroy it and its quota group at the end."""
    instance_id = create(service, image_id)
    try:
        service.psql(instance_id, "CREATE TABLE filler (i integer, t text)")
        yield instance_id
    finally:
        service.destroy_instance(instance_id)
    await_that(lambda: group(instance_id) not in groups(), "its quota group is gone")


def fill_up(service: Service, instance_id: int, sql: str = FILL) -> str:
    """Run the statement until it is refused, and return the error."""
    environment = {**service.environment(instance_id), "PGDATABASE": "my_db"}
    for _ in range(2000):
        done = run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, ok=False, env=environment)
        if done.returncode != 0:
            return str(done.stderr)
    raise AssertionError("nothing stopped it")


def test_an_instance_at_its_ceiling_is_read_only_until_data_are_deleted(
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
        await_that(lambda: attributes(service, instance_id)["status"] == "running", "it has room")
        service.psql(instance_id, "INSERT INTO filler SELECT 1, 'again'")


def test_an_instance_that_ran_into_the_limit_with_its_log_recovers(
    service: Service, image: int, neighbour: int
) -> None:
    """The instance writes past its ceiling, as its user may, until the kernel stops it."""
    with small(service, image) as instance_id:
        service.psql(instance_id, "ALTER ROLE draupnir SET default_transaction_read_only = off")
        said = fill_up(service, instance_id, f"{FILL}; UPDATE filler SET i = i + 1 WHERE i > 6000")
        assert "read-only transaction" not in said, said
        await_that(lambda: service.psql(instance_id, "SELECT 1", ok=False).returncode == 0, "it answers")
        assert int(service.answer(instance_id, "SELECT count(*) FROM filler")) > 0, "nothing of it is lost"
        assert attributes(service, instance_id)["status"] == "full"
        service.psql(instance_id, "TRUNCATE filler")
        await_that(lambda: attributes(service, instance_id)["status"] == "running", "it has room")


def test_on_a_full_disk_the_writer_is_stopped_and_its_neighbour_continues(
    service: Service, image: int, neighbour: int
) -> None:
    instance_id = create(service, image, None)
    service.psql(instance_id, "CREATE TABLE filler (i integer, t text)")
    critical_mib = low_mib() // 2
    with filled(leaving_mib=critical_mib + 60):
        fill_up(service, instance_id)
        await_that(lambda: attributes(service, instance_id)["status"] == "stopped", "the writer is stopped")
        assert attributes(service, neighbour)["status"] == "running"
        assert service.ask("GET", "/health_check").status_code == 503
        found = attributes(service, instance_id)
        assert "since the disk ran low" in found["stop_reason"]
        assert "Stopped because:" in service.client("instances", "show", str(instance_id)).stdout
        assert f"restart {instance_id}" in service.client("env", str(instance_id), ok=False).stderr
        run("systemctl", "restart", "draupnir")
        await_that(lambda: service.ask("GET", "/instances").status_code == 200, "the service is back")
        assert attributes(service, instance_id)["status"] == "stopped"
        assert service.ask("POST", f"/instances/{instance_id}/restart").status_code == 507
    service.psql(neighbour, "CREATE TABLE while_the_other_was_stopped (i integer)")
    await_that(lambda: service.ask("GET", "/health_check").status_code == 200, "there is room")
    service.client("instances", "restart", str(instance_id))
    assert int(service.answer(instance_id, "SELECT count(*) FROM filler")) > 0, "nothing of it is lost"
    service.destroy_instance(instance_id)


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


def test_every_instance_has_a_ceiling_by_default(service: Service, neighbour: int) -> None:
    found = attributes(service, neighbour)
    assert MAX_BYTES < found["max_bytes"] < groups()[group(neighbour)]
    assert 0 < found["written_bytes"] < found["max_bytes"]


def test_a_compromised_daemon_cannot_raise_a_ceiling(service: Service, image: int, neighbour: int) -> None:
    """Neither of an existing instance, nor of a new one: the helper reads the configuration itself."""
    before = groups()
    ceiling = {"max_bytes": 2**60, "read_only": False, "extended": True}
    limit = {"op": "limit_instance", "instance_id": neighbour, "ceiling": ceiling, "parameters": {}}
    assert daemon.code_of(daemon.ask(limit)) == "bad_request"
    for asked in (None, ceiling, ceiling | {"max_bytes": attributes(service, neighbour)["max_bytes"] + 4096}):
        request = daemon.start(image_id=image, postgres_major=MAJOR, ceiling=asked)
        assert daemon.code_of(daemon.ask(request)) == "bad_request"
    after = groups()  # the helper prepares and deletes other groups in the background
    assert after[group(neighbour)] == before[group(neighbour)]
    assert set(after.values()) <= set(before.values())
    assert not (world.DATA / f"instances/{daemon.FREE_ID}").exists()
    assert not (world.DATA / f"instances/{daemon.FREE_ID}.json").exists()


def test_an_instance_keeps_its_ceiling_when_a_lower_one_is_configured(service: Service, image: int) -> None:
    with small(service, image) as instance_id:
        before = groups()[group(instance_id)]
        with configured(service, 'max_instance_bytes = "100M"\n'):
            assert service.ask("POST", f"/instances/{instance_id}/restart").status_code == 200
            assert "Disk quota exceeded" not in fill_up(service, instance_id)
            await_that(lambda: attributes(service, instance_id)["status"] == "full", "it is at its own ceiling")
            assert attributes(service, instance_id)["written_bytes"] > MAX_BYTES * 0.9
            assert groups()[group(instance_id)] == before


@pytest.mark.parametrize("client", [("instances", "create"), ("new",)], ids=["create", "new"])
def test_the_client_asks_for_a_ceiling_and_shows_it(service: Service, image: int, client: tuple[str, ...]) -> None:
    of = [str(image)] if client[-1] == "create" else []
    service.client(*client, *of, "--max-bytes", "150M")
    (instance_id,) = [
        line.split()[0] for line in service.client("instances", "list").stdout.splitlines() if line[0].isdigit()
    ]
    assert " of 157.3 MB" in service.client("instances", "show", instance_id).stdout
    service.destroy_instance(int(instance_id))


def test_an_archive_of_zeros_fails_its_image_at_once_and_leaves_nothing(
    service: Service, neighbour: int, tmp_path: Path
) -> None:
    """Create an archive of a hundred kilobytes that unpacks to three gigabytes."""
    path = tmp_path / "zeros.tar.zst"
    member = tarfile.TarInfo("base/zeros")
    member.size = 3 * 1024**3
    command = ["sh", "-c", f"(cat {tmp_path}/header; head -c {member.size} /dev/zero) | zstd -q -o {path}"]
    (tmp_path / "header").write_bytes(member.tobuf())
    run(*command)
    assert path.stat().st_size < MIB
    image_id = service.create_image()
    service.upload(image_id, path)
    answer = service.finalise(image_id)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["code"] == "ratio_exceeded"
    world.await_quiet()
    assert service.answer(neighbour, "SELECT count(*) FROM users") == "5000"
    service.destroy_image(image_id)


@pytest.fixture
def small_images(service: Service) -> Iterator[None]:
    """Limit uploads, and the work on them, to 100 MiB during the block."""
    with configured(service, 'max_image_bytes = "100M"\n'):
        yield


@pytest.mark.usefixtures("small_images")
def test_an_upload_ends_at_its_ceiling(service: Service, neighbour: int, tmp_path: Path) -> None:
    image_id = service.create_image()
    path = tmp_path / "noise"
    with Path("/dev/urandom").open("rb") as noise:
        path.write_bytes(noise.read(110 * MIB))
    assert service.upload(image_id, path, ok=False).returncode != 0
    assert (world.DATA / f"chroot/draupnir/image_uploads/{image_id}/noise").stat().st_blocks * 512 <= 100 * MIB
    service.destroy_image(image_id)
    await_that(lambda: f"1/{2 * 2**26 + image_id}" not in groups(), "its quota group is gone")


def test_an_uploaded_directory_shares_its_extents_with_the_work_and_leaves_room(
    service: Service, neighbour: int, source: Source
) -> None:
    size_bytes = sum(path.stat().st_size for path in source.data.rglob("*") if path.is_file())
    with configured(service, f'max_image_bytes = "{size_bytes // MIB + 8}M"\n'):
        image_id = service.create_image("SELECT 1;")
        service.upload(image_id, source.data, recursive=True)
        assert service.finalise(image_id).status_code == 200
    service.destroy_image(image_id)


@pytest.mark.usefixtures("small_images")
def test_a_script_that_writes_too_much_fails_its_image(service: Service, neighbour: int, backup: Path) -> None:
    image_id = service.create_image(
        # The pages of a row that is rolled back stay, so the work has no room when the job ends.
        "\\c my_db\nCREATE TABLE much (x text);"
        "\nINSERT INTO much SELECT repeat(md5(i::text), 32) FROM generate_series(1, 20000) i;"
        "\nUPDATE much SET x = x || x;\nUPDATE much SET x = x || x;\nUPDATE much SET x = x || x;"
    )
    service.upload(image_id, backup)
    answer = service.finalise(image_id)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (507, "no_room"), answer.text
    for text in ("report", "error"):
        assert service.ask("GET", f"/images/{image_id}/{text}").status_code == 200, "the job left its texts"
    service.ask("PATCH", f"/images/{image_id}", {"anonymisation_script": ""})
    assert service.finalise(image_id).status_code == 200, "what the first attempt wrote does not count any more"
    service.destroy_image(image_id)


@pytest.fixture
def without_quotas(service: Service) -> Iterator[None]:
    """Use an operator's own data disk without simple quotas."""
    run("btrfs", "quota", "disable", world.DATA)
    yield
    if run("btrfs", "qgroup", "show", world.DATA, ok=False).returncode != 0:
        run("btrfs", "quota", "enable", "--simple", world.DATA)


@pytest.mark.usefixtures("without_quotas")
def test_without_simple_quotas_there_are_no_ceilings_and_all_else_works(service: Service, image: int) -> None:
    """An instance without a quota group gets one at its next start after quotas were enabled again."""
    instance_id = create(service, image)
    assert attributes(service, instance_id)["written_bytes"] is None
    assert attributes(service, instance_id)["status"] == "running"
    assert "✗ quotas" in run("draupnir", "doctor", ok=False).stdout
    assert service.ask("GET", "/health_check").status_code == 200
    run("btrfs", "quota", "enable", "--simple", world.DATA)
    assert service.ask("POST", f"/instances/{instance_id}/restart").status_code == 200
    await_that(lambda: (attributes(service, instance_id)["written_bytes"] or 0) > 0, "what it writes is counted")
    service.destroy_instance(instance_id)
    await_that(lambda: group(instance_id) not in groups(), "its quota group is gone")
