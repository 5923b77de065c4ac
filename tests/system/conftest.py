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
    """A production server with personal data in it, stopped, and backups of it in many forms."""
    return Source(tmp_path_factory.mktemp("production"))


@pytest.fixture(scope="session")
def backup(source: Source) -> Path:
    """The brief's db_backup.tar.gz."""
    return source.tarball("db_backup.tar.gz", "-z")


@pytest.fixture(scope="session", autouse=True)
def _no_pool() -> Iterator[None]:
    """Instances that are made behind the back of a test would show in its world; test_pool.py has them."""
    before = CONFIGURATION.read_text()
    CONFIGURATION.write_text("pool_size = 0\ndirect_instances = true\n" + before)
    run("systemctl", "restart", "draupnir-helper", "draupnir")
    yield
    CONFIGURATION.write_text(before)
    run("systemctl", "restart", "draupnir-helper", "draupnir")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The installed service, with a key for uploads."""
    key = tmp_path_factory.mktemp("keys") / "key.pem"
    # A name of its own: a run that was cut short leaves its key behind.
    name = f"system tests {time.time_ns()}"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key)
    run("draupnir", "upload-key", "add", key.with_suffix(".pem.pub"))
    yield Service(key)
    run("draupnir", "upload-key", "remove", name)


@pytest.fixture(scope="session")
def image(service: Service, backup: Path) -> Iterator[int]:
    """A ready image that all tests may make instances of."""
    before = world.observe()
    image_id = service.make_image(backup)
    yield image_id
    service.destroy_image(image_id)
    world.await_equal(before)


@pytest.fixture(autouse=True)
def _nothing_left_behind(service: Service, request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test made is destroyed by it, and nothing else of it stays."""
    # The image of the session is part of the world for those who use it.
    if "image" in request.fixturenames:
        request.getfixturevalue("image")
    world.await_quiet()
    before = world.observe()
    yield
    world.await_equal(before)


@pytest.fixture
def instance(service: Service, image: int) -> Iterator[int]:
    """An instance of the session's image, destroyed at the end."""
    instance_id = int(service.create_instance(image)["id"])
    yield instance_id
    service.ask("DELETE", f"/instances/{instance_id}")


@pytest.fixture(scope="module")
def neighbour(service: Service, image: int) -> Iterator[int]:
    """An instance of somebody who does nothing but use it while others attack."""
    instance_id = int(service.create_instance(image)["id"])
    # Its processes are part of the world from now on.
    service.answer(instance_id, "SELECT 1")
    yield instance_id
    service.destroy_instance(instance_id)


@pytest.fixture(scope="module")
def bystanders(service: Service, neighbour: int) -> Iterator[aftermath.Bystanders]:
    """What no attack of the module may change."""
    with aftermath.planted():
        yield aftermath.Bystanders(service, neighbour)


@pytest.fixture
def _unharmed(bystanders: aftermath.Bystanders) -> Iterator[None]:
    """After the test the machine outside, the neighbour and doctor's report are as they were before."""
    yield
    bystanders.check()
