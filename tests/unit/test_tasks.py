from __future__ import annotations

import asyncio

import pytest

from draupnir.errors import NoRoom, Unavailable
from draupnir.operations.tasks import Subject, Tasks

pytestmark = pytest.mark.anyio
IT = Subject("image", 1)


class Work:
    """Work that waits to be told how to end, and counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.begun += 1
        return await self.over


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_callers_of_the_same_work_share_one_task() -> None:
    tasks, work = Tasks(), Work()
    callers = [asyncio.create_task(tasks.run("finalise", IT, work)) for _ in range(5)]
    await settled()
    work.over.set_result("done")
    assert await asyncio.gather(*callers) == ["done"] * 5
    assert work.begun == 1


async def test_an_error_reaches_every_caller() -> None:
    tasks, work = Tasks(), Work()
    callers = [asyncio.create_task(tasks.run("finalise", IT, work)) for _ in range(3)]
    await settled()
    work.over.set_exception(NoRoom("full"))
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NoRoom] * 3


async def test_a_caller_that_leaves_changes_nothing_for_the_others() -> None:
    tasks, work = Tasks(), Work()
    leaver = asyncio.create_task(tasks.run("finalise", IT, work))
    stayer = asyncio.create_task(tasks.run("finalise", IT, work))
    await settled()
    leaver.cancel()
    await settled()
    assert leaver.cancelled()
    work.over.set_result("done")
    assert await stayer == "done"


async def test_an_error_that_nobody_waits_for_makes_no_noise() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    tasks, work = Tasks(), Work()
    leaver = asyncio.create_task(tasks.run("finalise", IT, work))
    await settled()
    leaver.cancel()
    work.over.set_exception(NoRoom("full"))
    await settled()
    assert not tasks.busy(IT)
    assert not complaints


async def test_different_work_on_one_subject_never_overlaps() -> None:
    tasks, first, second, elsewhere = Tasks(), Work(), Work(), Work()
    tasks.start("create", IT, first)
    waiting = tasks.start("destroy", IT, second)
    tasks.start("destroy", Subject("image", 2), elsewhere)
    await settled()
    assert (first.begun, second.begun, elsewhere.begun) == (1, 0, 1)
    first.over.set_result("")
    await settled()
    assert second.begun == 1
    second.over.set_result("done")
    assert await waiting == "done"
    await tasks.close()


async def test_work_can_be_done_again_once_it_is_over() -> None:
    tasks = Tasks()
    for _ in range(2):
        work = Work()
        work.over.set_result("done")
        assert await tasks.run("finalise", IT, work) == "done"
        assert work.begun == 1


async def test_closing_tells_those_who_wait() -> None:
    tasks = Tasks()
    caller = asyncio.create_task(tasks.run("finalise", IT, Work()))
    queued = asyncio.create_task(tasks.run("destroy", IT, Work()))
    await settled()
    await tasks.close()
    for each in (caller, queued):
        with pytest.raises(Unavailable, match="was stopped"):
            await each
    assert not tasks.busy(IT)
