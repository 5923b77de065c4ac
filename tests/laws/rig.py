"""A helper under test, fake or real, with free ids, and cleanup at the end."""

from __future__ import annotations

import itertools
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TypeVar

from draupnir import certificates
from draupnir_helper import wire
from draupnir_helper.wire import ErrorCode, JobKind, JobState

R = TypeVar("R", bound=wire.Wire)

# High ids, which are unused.
FIRST_ID = wire.MAX_ID - 1000
# Only a hang reaches this deadline.
DEADLINE_S = 300
MAX_BYTES = 2**30
MADE_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Refused(Exception):
    """The helper refused."""

    def __init__(self, refusal: wire.Refusal) -> None:
        super().__init__(f"{refusal.code}: {refusal.detail}")
        self.code = refusal.code


class Rig(ABC):
    """A helper, and its surroundings: uploads, installed majors and ports."""

    def __init__(self, major: int, ports: range) -> None:
        self.major = major
        self.ports = ports
        self._images = itertools.count(FIRST_ID)
        self._instances = itertools.count(FIRST_ID)
        self._free_ports = iter(reversed(ports))
        self._made: list[wire.AnyRequest] = []
        self._authority = certificates.create_authority()
        self._server = certificates.issue_server(self._authority, "db.example.org")

    @abstractmethod
    def exchange(self, request: wire.AnyRequest) -> bytes:
        """Send the request, and return the bytes of the answer."""

    @abstractmethod
    def upload(self, image_id: int) -> None:
        """Put a backup into an existing upload."""

    @abstractmethod
    def failing_script(self) -> str:
        """Return a script that makes the next finalise fail, with an error that names `nowhere`."""

    @abstractmethod
    def occupy(self, port: int) -> AbstractContextManager[None]:
        """Return a context in which another program listens on the port."""

    def ask(self, request: wire.Request[R]) -> R:
        """Return the reply. Raises Refused."""
        answer = wire.Answer.model_validate_json(self.exchange(request))
        if answer.refusal is not None:
            raise Refused(answer.refusal)
        return request.reply_type().model_validate_json(json.dumps(answer.reply))

    def refusal(self, request: wire.AnyRequest) -> ErrorCode | None:
        """Return the code with which a request is refused, or None if it is accepted."""
        try:
            self.ask(request)
        except Refused as error:
            return error.code
        return None

    def image_id(self) -> int:
        """Return an unused image id."""
        image_id = next(self._images)
        self._made.append(wire.DestroyImage(image_id=image_id))
        return image_id

    def instance_id(self) -> int:
        """Return an unused instance id."""
        instance_id = next(self._instances)
        self._made.append(wire.DestroyInstance(instance_id=instance_id))
        return instance_id

    def port(self) -> int:
        """Return an unused port."""
        return next(self._free_ports)

    def start(self, instance_id: int, image_id: int, port: int, **changed: object) -> wire.StartInstance:
        """Return a normal request that starts an instance."""
        request = wire.StartInstance(
            instance_id=instance_id,
            image_id=image_id,
            owner="jane@example.com",
            port=port,
            created_at=MADE_AT,
            new=True,
            postgres_major=self.major,
            loopback_only=False,
            addresses=None,
            sleep_after_s=1800,
            direct=False,
            superuser=False,
            ceiling=wire.Ceiling(max_bytes=MAX_BYTES, read_only=False, extended=False),
            parameters={},
            authority_certificate=self._authority.certificate,
            server_certificate=self._server.certificate,
            server_key=self._server.key,
        )
        return request.model_copy(update=changed)

    def instance(self, image_id: int) -> int:
        """Start an instance of the image."""
        instance_id = self.instance_id()
        assert self.ask(self.start(instance_id, image_id, self.port())).listening
        return instance_id

    def state(self, instance_id: int) -> wire.InstanceState | None:
        """Return the units of the instance."""
        units = self.ask(wire.ObserveInstances()).instance_units
        return next((each for each in units if each.instance_id == instance_id), None)

    def job(self, kind: JobKind, image_id: int) -> wire.Job:
        """Wait for the end of the job, and return it."""

        def ended() -> bool:
            return self.ask(wire.InspectJob(kind=kind, image_id=image_id)).state is not JobState.RUNNING

        self.until(ended)
        return self.ask(wire.InspectJob(kind=kind, image_id=image_id))

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until the condition holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def clear(self) -> None:
        """Destroy everything that was created, the latest first."""
        for request in reversed(self._made):
            self.ask(request)
        self._made.clear()
        self.until(lambda: self.ask(wire.EmptyTrash()).left == 0)
