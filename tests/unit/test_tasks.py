from __future__ import annotations

import asyncio

import pytest

from draupnir.errors import NoRoom, Unavailable
from draupnir.operations.tasks import Subject, Tasks, Work

pytestmark = pytest.mark.anyio
IT = Subject("image", 1)


class Worker:
    """Work whose end the test controls; it counts its starts."""

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
    tasks, work = Tasks(), Worker()
    callers = [asyncio.create_task(tasks.run(Work.FINALISE, IT, work)) for _ in range(5)]
    await settled()
    work.over.set_result("done")
    assert await asyncio.gather(*callers) == ["done"] * 5
    assert work.begun == 1


async def test_an_error_reaches_every_caller() -> None:
    tasks, work = Tasks(), Worker()
    callers = [asyncio.create_task(tasks.run(Work.FINALISE, IT, work)) for _ in range(3)]
    await settled()
    work.over.set_exception(NoRoom("full"))
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NoRoom] * 3


async def test_a_caller_that_leaves_changes_nothing_for_the_others() -> None:
    tasks, work = Tasks(), Worker()
    leaver = asyncio.create_task(tasks.run(Work.FINALISE, IT, work))
    stayer = asyncio.create_task(tasks.run(Work.FINALISE, IT, work))
    await settled()
    leaver.cancel()
    await settled()
    assert leaver.cancelled()
    work.over.set_result("done")
    assert await stayer == "done"


async def test_an_error_without_a_waiting_caller_causes_no_warning() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    tasks, work = Tasks(), Worker()
    leaver = asyncio.create_task(tasks.run(Work.FINALISE, IT, work))
    await settled()
    leaver.cancel()
    work.over.set_exception(NoRoom("full"))
    await settled()
    assert not tasks.busy(IT)
    assert not complaints


async def test_different_work_on_one_subject_never_overlaps() -> None:
    tasks, first, second, elsewhere = Tasks(), Worker(), Worker(), Worker()
    tasks.start(Work.CREATE_IMAGE, IT, first)
    waiting = tasks.start(Work.DESTROY_IMAGE, IT, second)
    tasks.start(Work.DESTROY_IMAGE, Subject("image", 2), elsewhere)
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
        work = Worker()
        work.over.set_result("done")
        assert await tasks.run(Work.FINALISE, IT, work) == "done"
        assert work.begun == 1


async def test_the_same_work_with_different_values_is_not_shared() -> None:
    tasks, first, second = Tasks(), Worker(), Worker()
    for_jane = asyncio.create_task(tasks.run(Work.RESTORE, IT, first, variant="jane"))
    for_bob = asyncio.create_task(tasks.run(Work.RESTORE, IT, second, variant="bob"))
    await settled()
    first.over.set_result("jane's")
    second.over.set_result("bob's")
    assert (await for_jane, await for_bob) == ("jane's", "bob's")


async def test_closing_raises_for_waiting_callers() -> None:
    tasks = Tasks()
    caller = asyncio.create_task(tasks.run(Work.FINALISE, IT, Worker()))
    queued = asyncio.create_task(tasks.run(Work.DESTROY_IMAGE, IT, Worker()))
    await settled()
    await tasks.close()
    for each in (caller, queued):
        with pytest.raises(Unavailable, match="was stopped"):
            await each
    assert not tasks.busy(IT)
