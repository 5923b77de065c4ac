"""Exhausted resources are reported clearly, nothing is lost or left behind, and the service recovers."""

from __future__ import annotations

import concurrent.futures
import io
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.system import world
from tests.system.backups import Source
from tests.system.faults import FILLER, await_that, configured, fill, filled, low_mib
from tests.system.service import ANONYMISE, Service

# Endless writes, with rows of about a megabyte.
RUNAWAY = """
\\c my_db
SELECT pg_sleep(2);
CREATE TABLE runaway AS
  SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 30000) i, generate_series(1, 1000) j GROUP BY j;
"""


def no_room(answer: httpx.Response) -> None:
    assert answer.status_code == 507, answer.text
    (error,) = answer.json()["errors"]
    assert error["code"] == "no_room"
    assert "The data disk " in error["detail"]


def health(service: Service) -> tuple[int, str]:
    """Return the status of the health check, and its report about the disk."""
    answer = service.ask("GET", "/health_check")
    body = answer.json()
    return answer.status_code, str(body.get("disk") or body.get("parts", {}).get("disk", ""))


def check_image(service: Service, image_id: int) -> None:
    """Check that it can now be finalised from the earlier upload, and used."""
    service.ask("PATCH", f"/images/{image_id}", {"anonymisation_script": ANONYMISE})
    answer = service.finalise(image_id)
    assert answer.status_code == 200, answer.text
    instance_id = int(service.create_instance(image_id)["id"])
    assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
    service.destroy_image(image_id)


@pytest.fixture
def bulky(source: Source, tmp_path: Path) -> Path:
    """Create a small archive with 400 MiB of zeros beside the data."""
    path = tmp_path / "bulky.tar.gz"
    padding = tarfile.TarInfo("./base/padding")
    padding.size = 400 * 1024 * 1024
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(source.data, ".")
        with Path("/dev/zero").open("rb") as zeros:
            tar.addfile(padding, zeros)
    return path


def test_an_upload_that_does_not_fit_fails_and_fits_later(service: Service, tmp_path: Path) -> None:
    image_id = service.create_image()
    file = tmp_path / "random"
    with Path("/dev/urandom").open("rb") as noise:
        file.write_bytes(noise.read(64 * 1024 * 1024))
    with filled(leaving_mib=8):
        assert service.upload(image_id, file, ok=False).returncode != 0
        assert service.image(image_id)["status"] == "awaiting_upload"
    await_that(lambda: service.upload(image_id, file, ok=False).returncode == 0, "uploads may grow again")
    arrived = world.DATA / f"chroot/draupnir/image_uploads/{image_id}/random"
    assert arrived.read_bytes() == file.read_bytes()
    service.destroy_image(image_id)


@pytest.mark.parametrize("beyond_mib", [-16, 200], ids=["before it begins", "on the way"])
def test_an_extraction_that_does_not_fit_fails_and_fits_later(service: Service, bulky: Path, beyond_mib: int) -> None:
    image_id = service.create_image()
    service.upload(image_id, bulky)
    with filled(low_mib() + beyond_mib):
        no_room(service.finalise(image_id))
        assert service.image(image_id)["error"]["code"] == "no_room"
    check_image(service, image_id)


def test_a_script_that_fills_the_disk_fails_and_another_fits(service: Service, backup: Path) -> None:
    image_id = service.create_image(RUNAWAY)
    service.upload(image_id, backup)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(service.finalise, image_id)
            await_that(
                lambda: (
                    (service.image(image_id)["progress"] or {}).get("activity") == "running the anonymisation script"
                ),
                "the script runs",
            )
            fill(low_mib() // 2 - 100)
        no_room(answer.result())
    finally:
        FILLER.unlink(missing_ok=True)
    check_image(service, image_id)


def test_on_a_full_disk_nothing_is_created_and_instances_can_be_destroyed(service: Service, backup: Path) -> None:
    image_id = service.make_image(backup)
    kept, gone = (int(service.create_instance(image_id)["id"]) for _ in range(2))
    for instance_id in (kept, gone):
        assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
    world.await_quiet()
    assert health(service) == (200, "")
    with filled(low_mib() - 100):
        await_that(lambda: health(service) == (200, "low"), "it says that the disk is low")
        no_room(service.ask("POST", "/instances", {"image_id": image_id}))
    with filled(leaving_mib=16):
        await_that(lambda: health(service)[0] == 503, "it says that the disk is full")
        assert "The data disk has only" in health(service)[1]
        before = world.observe()
        no_room(service.ask("POST", "/instances", {"image_id": image_id}))
        no_room(service.ask("POST", "/images", {"backed_up_at": "2017-05-01T12:00:00Z", "anonymisation_script": ""}))
        world.await_equal(before)
        assert service.answer(kept, "SELECT count(*) FROM users") == "5000", "what exists can be read"
        service.destroy_instance(gone)
    assert service.answer(kept, "SELECT count(*) FROM users") == "5000"
    service.destroy_instance(int(service.create_instance(image_id)["id"]))
    service.destroy_image(image_id)


def test_of_two_hundred_concurrent_creates_one_succeeds_for_each_port(service: Service, image: int) -> None:
    ports = range(7000, 7012)
    with configured(service, f"min_instance_port = {ports.start}\nmax_instance_port = {ports.stop}\n"):
        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            answers = list(pool.map(lambda _: service.ask("POST", "/instances", {"image_id": image}), range(200)))
        created = [answer.json()["data"] for answer in answers if answer.status_code == 201]
        refused = {
            (answer.status_code, answer.json()["errors"][0]["code"]) for answer in answers if answer.status_code != 201
        }
        assert refused == {(422, "no_free_port")}
        assert sorted(int(data["attributes"]["port"]) for data in created) == list(ports)
        assert service.answer(created[-1]["id"], "SELECT count(*) FROM users") == "5000"
        service.destroy_instance(created.pop()["id"])
        created.append(service.create_instance(image))
        for data in created:
            service.destroy_instance(data["id"])


@pytest.mark.parametrize("network", ["proxied", "direct"])
def test_a_port_of_another_program_is_skipped(service: Service, image: int, network: str) -> None:
    def create() -> httpx.Response:
        return service.ask("POST", "/instances", {"image_id": image, "network": network})

    with configured(service, "min_instance_port = 7000\nmax_instance_port = 7002\n"), socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", 7000))
        listener.listen()
        answer = create()
        assert answer.status_code == 201, answer.text
        data = answer.json()["data"]
        assert data["attributes"]["port"] == "7001"
        assert service.answer(data["id"], "SELECT count(*) FROM users") == "5000"
        answer = create()
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "no_free_port")
        service.destroy_instance(data["id"])


def test_a_finalise_without_a_free_port_waits_for_one(service: Service, image: int, backup: Path) -> None:
    with configured(service, "min_instance_port = 7000\nmax_instance_port = 7001\n"):
        instance_id = int(service.create_instance(image)["id"])
        image_id = service.create_image()
        service.upload(image_id, backup)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(service.finalise, image_id)
            await_that(
                lambda: (service.image(image_id)["progress"] or {}).get("activity") == "waiting for a free port",
                "it waits for a port",
            )
            service.destroy_instance(instance_id)
        assert answer.result().status_code == 200, answer.result().text
        service.destroy_image(image_id)


def test_an_archive_of_very_many_files_is_accepted_or_refused_in_time(
    service: Service, source: Source, tmp_path: Path
) -> None:
    path = tmp_path / "many.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(source.data, ".")
        for number in range(20_000):
            tar.addfile(tarfile.TarInfo(f"./base/many/{number}"), io.BytesIO())
    image_id = service.make_image(path)
    service.destroy_image(image_id)


@pytest.fixture
def two_instances_per_user(service: Service) -> Iterator[None]:
    with configured(service, "max_instances_per_user = 2\n"):
        yield


@pytest.mark.usefixtures("two_instances_per_user")
def test_the_quota_of_instances_is_enforced(service: Service, image: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: service.ask("POST", "/instances", {"image_id": image}), range(8)))
    made = sorted(int(each.json()["data"]["id"]) for each in answers if each.status_code == 201)
    refused = [each.json()["errors"][0] for each in answers if each.status_code == 429]
    assert (len(made), len(refused)) == (2, 6)
    assert {each["code"] for each in refused} == {"too_many_instances"}
    done = service.client("instances", "create", str(image), ok=False)
    assert done.returncode != 0
    assert (
        f"2 instances, and max_instances_per_user allows 2: {made[0]}, {made[1]}. Destroy an unused one" in done.stderr
    )
    for each in made:
        service.destroy_instance(each)
