"""The daemon's work under way: tasks that callers join and may leave, never two at once on one subject."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from draupnir import audit
from draupnir.errors import DraupnirError, Unavailable

T = TypeVar("T")

log = logging.getLogger(__name__)


class Subject(NamedTuple):
    """The one thing a task works on, such as ("image", 4)."""

    kind: str
    id: int

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class Tasks:
    """Named work on subjects. The same name on the same subject is one task that everybody joins; different names
    on the same subject wait for each other. So work must never join other work on its own subject.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[str, Subject], asyncio.Task[Any]] = {}
        self._lanes: WeakValueDictionary[Subject, asyncio.Lock] = WeakValueDictionary()

    def start(self, name: str, subject: Subject, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """The task under way, or a new one; it goes on whatever becomes of the caller."""
        key = (name, subject)
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._in_lane(subject, work), name=f"{name} {subject}")
            self._running[key] = task
            origin = audit.origin.get()
            task.add_done_callback(lambda done: self._finished(key, origin, done))
        return task

    async def run(self, name: str, subject: Subject, work: Callable[[], Awaitable[T]]) -> T:
        """Start or join, and return or raise what the work does. Raises Unavailable if the daemon stops meanwhile."""
        task = self.start(name, subject, work)
        # Unlike awaiting the task itself, this leaves it alone when the caller is cancelled.
        await asyncio.wait([task])
        if task.cancelled():
            raise Unavailable(f"The service was stopped during {name} {subject}; it goes on when the service is back.")
        return task.result()

    def busy(self, subject: Subject) -> bool:
        """Whether anything is under way, or waits, on the subject."""
        return any(running == subject for _, running in self._running)

    def doing(self, name: str) -> bool:
        """Whether anything of that name is under way on any subject."""
        return any(running == name for running, _ in self._running)

    async def close(self) -> None:
        """Cancel everything, as a crash would; what was cut short is taken up from the metadata."""
        # Again until it has effect: before Python 3.12 asyncio.wait_for, with which psycopg waits, may lose one.
        while tasks := list(self._running.values()):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1)

    async def _in_lane(self, subject: Subject, work: Callable[[], Awaitable[T]]) -> T:
        lane = self._lanes.setdefault(subject, asyncio.Lock())
        async with lane:
            return await work()

    def _finished(self, key: tuple[str, Subject], origin: audit.Origin, task: asyncio.Task[Any]) -> None:
        del self._running[key]
        if task.cancelled():
            return
        # Asking for the exception also tells asyncio that somebody has seen it, when no caller stayed.
        error = task.exception()
        if origin.answered:
            audit.record_work(origin, f"{key[0]} {key[1]}", error)
        if isinstance(error, DraupnirError):
            log.info("%s %s: %s: %s", *key, error.code, error.detail)
        elif error is not None:
            log.error("%s %s broke", *key, exc_info=error)
