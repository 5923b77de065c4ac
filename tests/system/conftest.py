"""System tests run as root in the test machine, against the installed packages; each leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import aftermath
from tests.system import world
from tests.system.backups import Source
from tests.system.service import Service, run

CONFIGURATION = Path("/etc/draupnir/config.toml")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Provide a stopped production server with personal data, and backups of it in many forms."""
    return Source(tmp_path_factory.mktemp("production"))


@pytest.fixture(scope="session")
def backup(source: Source) -> Path:
    """Provide the brief's db_backup.tar.gz."""
    return source.tarball("db_backup.tar.gz", "-z")


@pytest.fixture(scope="session", autouse=True)
def _no_pool() -> Iterator[None]:
    """Disable the pool, whose instances would show in the tests' worlds; test_pool.py enables it."""
    before = CONFIGURATION.read_text()
    CONFIGURATION.write_text("pool_size = 0\ndirect_instances = true\n" + before)
    run("systemctl", "restart", "draupnir-helper", "draupnir")
    yield
    CONFIGURATION.write_text(before)
    run("systemctl", "restart", "draupnir-helper", "draupnir")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Provide the installed service, with an upload key."""
    key = tmp_path_factory.mktemp("keys") / "key.pem"
    # A unique name, because an interrupted run leaves its key behind.
    name = f"system tests {time.time_ns()}"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key)
    run("draupnir", "upload-key", "add", key.with_suffix(".pem.pub"))
    yield Service(key)
    run("draupnir", "upload-key", "remove", name)


@pytest.fixture(scope="session")
def image(service: Service, backup: Path) -> Iterator[int]:
    """Provide a ready image for all tests."""
    before = world.observe()
    image_id = service.make_image(backup)
    yield image_id
    service.destroy_image(image_id)
    world.await_equal(before)


@pytest.fixture(autouse=True)
def _nothing_left_behind(service: Service, request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that each test destroys everything it created."""
    # Tests that use the session's image count it as part of the world.
    if "image" in request.fixturenames:
        request.getfixturevalue("image")
    world.await_quiet()
    before = world.observe()
    yield
    world.await_equal(before)


@pytest.fixture
def instance(service: Service, image: int) -> Iterator[int]:
    """Provide an instance of the session's image, destroyed at the end."""
    instance_id = int(service.create_instance(image)["id"])
    yield instance_id
    service.ask("DELETE", f"/instances/{instance_id}")


@pytest.fixture(scope="module")
def neighbour(service: Service, image: int) -> Iterator[int]:
    """Provide the instance of an innocent user during attacks of others."""
    instance_id = int(service.create_instance(image)["id"])
    # From now on its processes are part of the world.
    service.answer(instance_id, "SELECT 1")
    yield instance_id
    service.destroy_instance(instance_id)


@pytest.fixture(scope="module")
def bystanders(service: Service, neighbour: int) -> Iterator[aftermath.Bystanders]:
    """Provide the state that no attack of the module may change."""
    with aftermath.planted():
        yield aftermath.Bystanders(service, neighbour)


@pytest.fixture
def _unharmed(bystanders: aftermath.Bystanders) -> Iterator[None]:
    """Check that the machine outside, the neighbour and doctor's report are unchanged after the test."""
    yield
    bystanders.check()
