"""The fake helper obeys the laws of the real one; tests/system/test_helper_laws.py tests the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from draupnir_helper import wire
from draupnir_helper.wire import JobKind, JobState
from tests.fakes import FakeHelper
from tests.laws.images import *  # noqa: F403
from tests.laws.images import extracted, finalise, publish
from tests.laws.instances import *  # noqa: F403
from tests.laws.rig import Rig


class FakeRig(Rig):
    """The helper in memory."""

    def __init__(self) -> None:
        self.helper = FakeHelper()
        self.helper.ports = range(20000, 20100)
        super().__init__(major=15, ports=self.helper.ports)

    def exchange(self, request: wire.AnyRequest) -> bytes:
        return asyncio.run(self.helper.exchange(request))

    def upload(self, image_id: int) -> None:
        self.helper.upload(image_id)

    def failing_script(self) -> str:
        self.helper.outcomes[JobKind.FINALISE] = JobState.FAILED
        self.helper.error_text = "nowhere"
        return "SELECT nothing FROM nowhere;"

    @contextmanager
    def occupy(self, port: int) -> Iterator[None]:
        self.helper.foreign_ports.add(port)
        yield
        self.helper.foreign_ports.remove(port)


@pytest.fixture
def rig() -> Iterator[Rig]:
    fake = FakeRig()
    yield fake
    fake.clear()


@pytest.fixture
def published(rig: Rig) -> int:
    """Return an image that instances can be made of."""
    image_id = extracted(rig)
    rig.ask(finalise(rig, image_id))
    assert rig.job(JobKind.FINALISE, image_id).state is JobState.SUCCEEDED
    rig.ask(publish(rig, image_id))
    rig.ask(wire.StopJobs(image_id=image_id))
    return image_id
