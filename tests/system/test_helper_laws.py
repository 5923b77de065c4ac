"""The laws of the helper, tested with the real one over its socket while the daemon is stopped."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from draupnir_helper import wire
from tests.hostile import daemon
from tests.laws.images import *  # noqa: F403
from tests.laws.instances import *  # noqa: F403
from tests.laws.rig import Rig
from tests.system import world
from tests.system.backups import MAJOR
from tests.system.faults import DAEMON, await_healthy, restart
from tests.system.service import Service, run


class RealRig(Rig):
    """The helper of the installed packages."""

    def __init__(self, backup: Path) -> None:
        super().__init__(major=MAJOR, ports=range(6432, 8432))
        self._backup = backup

    def exchange(self, request: wire.AnyRequest) -> bytes:
        with daemon.connected(request.deadline_s) as client:
            client.sendall(request.model_dump_json(warnings=False).encode())
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def upload(self, image_id: int) -> None:
        run("cp", self._backup, world.DATA / f"chroot/draupnir/image_uploads/{image_id}/db_backup.tar.gz")

    def failing_script(self) -> str:
        return "SELECT nothing FROM nowhere;"

    @contextmanager
    def occupy(self, port: int) -> Iterator[None]:
        with socket.create_server(("127.0.0.1", port)):
            yield


@pytest.fixture(scope="module", autouse=True)
def _no_daemon(service: Service, image: int) -> Iterator[None]:
    """Stop the daemon, whose reconciler would clean up."""
    run("systemctl", "stop", DAEMON)
    yield
    restart(DAEMON)
    await_healthy(service)


@pytest.fixture
def rig(backup: Path) -> Iterator[Rig]:
    real = RealRig(backup)
    yield real
    real.clear()


@pytest.fixture
def published(image: int) -> int:
    """Return an image that instances can be made of."""
    return image
