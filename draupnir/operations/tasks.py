"""Runs the daemon's tasks, at most one at a time for each subject. Callers join a task, and may leave it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import Enum, unique
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from draupnir import audit
from draupnir.errors import DraupnirError, Unavailable

T = TypeVar("T")

log = logging.getLogger(__name__)


@unique
class Work(Enum):
    """The kind of work of a task. The value is the text before the id of its subject.

    Callers of the same work share its task and its outcome, so two kinds of work never share a member.
    """

    CREATE_IMAGE = "create image"
    MAKE_UPLOAD = "make upload of image"
    FINALISE = "finalise image"
    CLEAR_UP = "clear up image"
    DESTROY_IMAGE = "destroy image"
    CREATE_INSTANCE = "create instance"
    START = "start instance"
    RESTART = "restart instance"
    LIMIT = "limit instance"
    STOP = "stop instance"
    STOP_AGAIN = "stop again instance"
    CLOSE = "close instance"
    RESTORE = "restore instance"
    TAKE_BACK = "take back instance"
    ASSIGN = "assign instance"
    DESTROY_INSTANCE = "destroy instance"
    STOP_UNITS = "stop units of instance"
    EMPTY_TRASH = "empty trash"


class Subject(NamedTuple):
    """The image or instance that a task works on, such as ("image", 4)."""

    kind: str
    id: int


class Key(NamedTuple):
    """The identity of a task; `variant` distinguishes work with different values, such as a new owner."""

    work: Work
    subject: Subject
    variant: str

    def __str__(self) -> str:
        return f"{self.work.value} {self.subject.id}"


class Tasks:
    """The running tasks. Callers of the same work on the same subject join one task; other work on that subject waits.

    So work must never join other work on its own subject, which would deadlock.
    """

    def __init__(self) -> None:
        self._running: dict[Key, asyncio.Task[Any]] = {}
        self._lanes: WeakValueDictionary[Subject, asyncio.Lock] = WeakValueDictionary()

    def start(
        self, work: Work, subject: Subject, run: Callable[[], Awaitable[T]], *, variant: str = ""
    ) -> asyncio.Task[T]:
        """Return the running task, or start one. The task continues if the caller is cancelled."""
        key = Key(work, subject, variant)
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._in_lane(subject, run), name=str(key))
            self._running[key] = task
            origin = audit.origin.get()
            task.add_done_callback(lambda done: self._finished(key, origin, done))
        return task

    async def run(self, work: Work, subject: Subject, run: Callable[[], Awaitable[T]], *, variant: str = "") -> T:
        """Start or join the work, and return its result or raise its error. Raises Unavailable if the daemon stops."""
        task = self.start(work, subject, run, variant=variant)
        # Awaiting the task itself would cancel it when the caller is cancelled.
        await asyncio.wait([task])
        if task.cancelled():
            raise Unavailable(
                f"The service was stopped during `{task.get_name()}`; the work continues when the service is back."
            )
        return task.result()

    def busy(self, subject: Subject) -> bool:
        """Return whether a task is running or waiting for the subject."""
        return any(key.subject == subject for key in self._running)

    def doing(self, work: Work) -> bool:
        """Return whether that kind of work is running for any subject."""
        return any(key.work is work for key in self._running)

    async def close(self) -> None:
        """Cancel all tasks, like a crash. A restarted daemon continues interrupted work from the metadata."""
        # Repeat this, because before Python 3.12 asyncio.wait_for, which psycopg uses, may lose a cancellation.
        while tasks := list(self._running.values()):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1)

    async def _in_lane(self, subject: Subject, run: Callable[[], Awaitable[T]]) -> T:
        lane = self._lanes.setdefault(subject, asyncio.Lock())
        async with lane:
            return await run()

    def _finished(self, key: Key, origin: audit.Origin, task: asyncio.Task[Any]) -> None:
        del self._running[key]
        if task.cancelled():
            return
        # Reading the exception also prevents asyncio's warning about it if no caller waits any more.
        error = task.exception()
        if origin.answered:
            audit.record_work(origin, str(key), error)
        if isinstance(error, DraupnirError):
            log.info("%s: %s: %s", key, error.code, error.detail)
        elif error is not None:
            log.error("%s failed with an unexpected error", key, exc_info=error)
