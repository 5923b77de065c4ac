"""The daemon crashes at every request to the helper, before and after its execution; the next one repairs the state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from draupnir.models import ImageStatus
from draupnir.operations import images, instances
from draupnir.operations.context import Context
from draupnir.operations.tasks import Tasks
from draupnir_helper.wire import JobKind, JobReport, JobState
from tests.daemon import (
    BACKED_UP_AT,
    CALLER,
    SCRIPT,
    another_daemon,
    assert_lawful,
    converge,
    fake,
    new_instance,
    ready_image,
    settle,
    uploaded_image,
)
from tests.fakes import CIPHER, Disk, FakeHelper, Killed

pytestmark = pytest.mark.anyio

Act = Callable[[Context], Awaitable[object]]
Check = Callable[[Context], Awaitable[None]]
Story = Callable[[Context], Awaitable[tuple[Act, Check]]]


async def create_image(_: Context) -> tuple[Act, Check]:
    async def check(context: Context) -> None:
        assert {image.status for image in await images.list_all(context)} <= {ImageStatus.AWAITING_UPLOAD}

    return lambda context: images.create(context, BACKED_UP_AT, SCRIPT), check


async def finalise(before: Context) -> tuple[Act, Check]:
    image = await uploaded_image(before)

    async def check(context: Context) -> None:
        if (await images.get(context, image.id)).status is ImageStatus.AWAITING_UPLOAD:
            await images.finalise(context, image.id, wait=True)
        assert (await images.get(context, image.id)).status is ImageStatus.READY

    return lambda context: images.finalise(context, image.id, wait=True), check


async def finalise_nothing(before: Context) -> tuple[Act, Check]:
    image = await images.create(before, BACKED_UP_AT, SCRIPT)

    async def check(context: Context) -> None:
        assert (await images.get(context, image.id)).status is ImageStatus.AWAITING_UPLOAD

    return lambda context: images.finalise(context, image.id, wait=True), check


async def finalise_a_bad_script(before: Context) -> tuple[Act, Check]:
    image = await uploaded_image(before)

    async def act(context: Context) -> None:
        fake(context).outcomes[JobKind.FINALISE] = JobState.FAILED
        fake(context).reports[JobKind.FINALISE] = JobReport(error_code="script_failed", error="line 2: no such table")
        await images.finalise(context, image.id, wait=True)

    async def check(context: Context) -> None:
        # The next daemon's job succeeded, or the failure was recorded before; nothing in between.
        assert (await images.get(context, image.id)).status in {ImageStatus.FAILED, ImageStatus.READY}

    return act, check


async def create_instance(before: Context) -> tuple[Act, Check]:
    image = await ready_image(before)

    async def check(context: Context) -> None:
        assert len(await instances.list_own(context, CALLER)) <= 1

    return lambda context: instances.create(context, CALLER, image.id), check


async def destroy_instance(before: Context) -> tuple[Act, Check]:
    instance = await new_instance(before, await ready_image(before))

    async def check(context: Context) -> None:
        assert await context.store.instances.get(instance.id) is None

    return lambda context: instances.destroy(context, CALLER, instance.id), check


async def destroy_image(before: Context) -> tuple[Act, Check]:
    image = await ready_image(before)
    await new_instance(before, image)
    await new_instance(before, image)

    async def check(context: Context) -> None:
        assert await context.store.images.get(image.id) is None

    return lambda context: images.destroy(context, image.id, cascade=True), check


@pytest.mark.parametrize("reboot", [False, True], ids=["restart", "reboot"])
@pytest.mark.parametrize("carried_out", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "story",
    [
        create_image,
        finalise,
        finalise_nothing,
        finalise_a_bad_script,
        create_instance,
        destroy_instance,
        destroy_image,
    ],
)
async def test_nothing_is_orphaned(context: Context, story: Story, carried_out: bool, reboot: bool) -> None:
    kill_at = 0
    while True:
        disk = Disk()
        prepared = another_daemon(context, disk)
        act, check = await story(prepared)
        await converge(prepared)

        doomed_helper = FakeHelper(disk)
        doomed_helper.kill_at, doomed_helper.kill_after = kill_at, carried_out
        doomed = Context(
            context.settings, context.store, doomed_helper, Tasks(), context.probe, doomed_helper.wake, cipher=CIPHER
        )
        await asyncio.gather(act(doomed), return_exceptions=True)
        if not doomed_helper.dead:
            await settle(doomed)
        await doomed.tasks.close()

        after = another_daemon(context, disk)
        if reboot:
            fake(after).reboot()
        await converge(after)
        await assert_lawful(after)
        await check(after)
        await settle(after)
        await wipe(after)
        if not doomed_helper.dead:
            break
        kill_at += 1
    assert kill_at > 0


async def wipe(context: Context) -> None:
    for image in await images.list_all(context):
        await images.destroy(context, image.id, cascade=True)
    await converge(context)
    await assert_lawful(context)
    assert not fake(context).disk.images


def test_killed_is_not_caught_by_an_operation() -> None:
    assert not issubclass(Killed, Exception)
