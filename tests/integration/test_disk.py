"""The disk watch: enforces ceilings, stops writers on a full disk, and both are reversible."""

from __future__ import annotations

import asyncio

import pytest

from draupnir.callers import Caller, Reach, Role
from draupnir.errors import CeilingTooHigh, NoRoom, WrongState
from draupnir.models import Condition, Fullness, Image, Instance, InstanceStatus, Shape
from draupnir.operations import disk, images, instances, observations, reconcile
from draupnir.operations.context import Context
from draupnir_helper import wire
from draupnir_helper.wire import ErrorCode
from tests.daemon import CALLER, ready_image, settle, until, uploaded_image
from tests.fakes import ROOM, FakeHelper, Refused

pytestmark = pytest.mark.anyio

GIB = 1024**3
LOW = ROOM.model_copy(update={"free_bytes": ROOM.low_bytes - 1})
CRITICAL = ROOM.model_copy(update={"free_bytes": ROOM.critical_bytes - 1})


async def look(context: Context, watch: disk.Watch) -> None:
    await disk.look_once(context, watch)
    await settle(context)


async def make(context: Context, image: Image, max_bytes: int = GIB) -> Instance:
    instance, _ = await instances.create(context, CALLER, image.id, Shape(60, max_bytes=max_bytes))
    return instance


async def condition(context: Context, instance_id: int) -> Condition:
    instance = await context.store.instances.get(instance_id)
    assert instance is not None
    return (await observations.observe(context, [instance]))[instance_id].condition


async def test_an_instance_gets_the_usual_ceiling_unless_it_asks_for_a_lower_one(
    context: Context, helper: FakeHelper
) -> None:
    image = await ready_image(context)
    usual, _ = await instances.create(context, CALLER, image.id)
    lower = await make(context, image)
    assert helper.disk.ceilings[usual.id].max_bytes == ROOM.max_instance_bytes
    assert helper.disk.ceilings[lower.id] == wire.Ceiling(max_bytes=GIB, read_only=False, extended=False)
    with pytest.raises(CeilingTooHigh, match="max_instance_bytes"):
        await make(context, image, ROOM.max_instance_bytes + 1)


async def test_an_instance_is_full_from_its_ceiling_on_until_it_is_well_below(
    context: Context, helper: FakeHelper
) -> None:
    instance, watch = await make(context, await ready_image(context)), disk.Watch()
    for written, is_full in [
        (GIB - 1, False),
        (GIB, True),
        (GIB - 1, True),
        (GIB * 9 // 10 + 1, True),
        (GIB * 9 // 10 - 1, False),
        (GIB - 1, False),
    ]:
        helper.disk.written[instance.id] = written
        await look(context, watch)
        assert helper.disk.ceilings[instance.id].read_only == is_full, written
        assert await condition(context, instance.id) is (Condition.FULL if is_full else Condition.RUNNING)


async def test_a_ceiling_that_could_not_be_enforced_is_enforced_at_the_next_check(
    context: Context, helper: FakeHelper
) -> None:
    instance, watch = await make(context, await ready_image(context)), disk.Watch()
    helper.disk.written[instance.id] = GIB

    def refuse(_: wire.AnyRequest) -> wire.Wire:
        raise Refused(ErrorCode.BUSY)

    helper.answers[wire.LimitInstance] = refuse
    await look(context, watch)
    assert not helper.disk.ceilings[instance.id].read_only
    del helper.answers[wire.LimitInstance]
    await look(context, watch)
    assert helper.disk.ceilings[instance.id].read_only


async def test_the_reserve_is_granted_once_to_a_full_instance_that_has_failed(
    context: Context, helper: FakeHelper
) -> None:
    instance, watch = await make(context, await ready_image(context)), disk.Watch()
    helper.disk.broken.add(instance.id)
    await look(context, watch)
    assert not helper.disk.ceilings[instance.id].extended, "it is not full"
    helper.disk.written[instance.id] = GIB
    await look(context, watch)
    assert helper.disk.ceilings[instance.id] == wire.Ceiling(max_bytes=GIB, read_only=True, extended=True)
    helper.disk.broken.clear()
    await look(context, watch)
    assert helper.disk.ceilings[instance.id].extended, "it is kept while it is full"
    helper.disk.written[instance.id] = 0
    await look(context, watch)
    assert helper.disk.ceilings[instance.id] == wire.Ceiling(max_bytes=GIB, read_only=False, extended=False)


async def test_a_full_instance_starts_read_only(context: Context, helper: FakeHelper) -> None:
    instance, watch = await make(context, await ready_image(context)), disk.Watch()
    helper.disk.written[instance.id] = GIB
    await look(context, watch)
    helper.reboot()
    await reconcile.reconcile_once(context)
    started = helper.disk.started[instance.id]
    assert started.ceiling == wire.Ceiling(max_bytes=GIB, read_only=True, extended=False)


async def test_on_a_low_disk_nothing_new_is_made(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    instance = await make(context, image)
    helper.room = LOW
    await look(context, disk.Watch())
    with pytest.raises(NoRoom):
        await make(context, image)
    with pytest.raises(NoRoom):
        await images.create(context, image.backed_up_at, "")
    assert await condition(context, instance.id) is Condition.RUNNING
    helper.room = ROOM
    await look(context, disk.Watch())
    await make(context, image)


async def test_on_a_full_disk_the_largest_writers_are_stopped(context: Context, helper: FakeHelper) -> None:
    image, watch = await ready_image(context), disk.Watch()
    large_before, heavy, other, light = [await make(context, image, 100 * GIB) for _ in range(4)]
    helper.disk.written[large_before.id] = 90 * GIB
    await look(context, watch)
    helper.room = LOW
    await look(context, watch)
    assert len(helper.disk.listening) == 4
    helper.disk.written |= {heavy.id: 10 * GIB, other.id: 6 * GIB, light.id: GIB}
    helper.room = CRITICAL
    await look(context, watch)
    assert helper.disk.listening.keys() == {large_before.id, light.id}
    assert await condition(context, heavy.id) is await condition(context, other.id) is Condition.STOPPED
    stopped = await context.store.instances.get(heavy.id)
    assert stopped is not None
    assert "10240 MiB" in str(stopped.stop_reason)
    await reconcile.reconcile_once(context)
    helper.reboot()
    await reconcile.reconcile_once(context)
    assert heavy.id not in helper.disk.listening, "it stays stopped"


async def test_no_instance_is_stopped_for_writes_of_others(context: Context, helper: FakeHelper) -> None:
    image, watch = await ready_image(context), disk.Watch()
    instance = await make(context, image)
    await look(context, watch)
    helper.disk.written[instance.id] = disk.UNREMARKABLE_BYTES
    helper.room = CRITICAL
    await look(context, watch)
    assert instance.id in helper.disk.listening


async def test_uploads_do_not_grow_while_the_disk_is_full(context: Context, helper: FakeHelper) -> None:
    watch = disk.Watch()
    for room, frozen in [(ROOM, False), (LOW, False), (CRITICAL, True), (LOW, True), (ROOM, False)]:
        helper.room = room
        await look(context, watch)
        assert helper.disk.frozen is frozen
    asked = len(helper.asked)
    await look(context, watch)
    assert wire.LimitUploads not in {type(each) for each in helper.asked[asked:]}


@pytest.mark.parametrize("kind", wire.JobKind)
async def test_jobs_give_way_to_instances(context: Context, helper: FakeHelper, kind: wire.JobKind) -> None:
    image = await uploaded_image(context)
    helper.outcomes[kind] = wire.JobState.RUNNING
    work = asyncio.create_task(images.finalise(context, image.id, wait=True))

    async def running() -> bool:
        return (kind, image.id) in helper.disk.jobs

    await until(running)
    helper.room = CRITICAL
    await disk.look_once(context, disk.Watch())
    with pytest.raises(NoRoom):
        await work
    await settle(context)
    assert not helper.disk.jobs
    assert not helper.disk.work


async def stopped(context: Context, helper: FakeHelper) -> Instance:
    image, watch = await ready_image(context), disk.Watch()
    instance = await make(context, image, 100 * GIB)
    await look(context, watch)
    helper.disk.written[instance.id] = GIB
    helper.room = CRITICAL
    await look(context, watch)
    return instance


async def test_a_stopped_instance_can_restart_when_the_disk_has_space(context: Context, helper: FakeHelper) -> None:
    instance = await stopped(context, helper)
    with pytest.raises(NoRoom):
        await instances.restart(context, CALLER, instance.id)
    helper.room = ROOM
    await look(context, disk.Watch())
    restarted = await instances.restart(context, CALLER, instance.id)
    assert (restarted.status, restarted.stop_reason) == (InstanceStatus.RUNNING, None)
    assert helper.disk.listening == {instance.id: instance.port}


async def test_a_running_instance_is_restarted_and_a_destroyed_one_is_not(context: Context, helper: FakeHelper) -> None:
    instance = await make(context, await ready_image(context))
    await instances.restart(context, CALLER, instance.id)
    kinds = [type(each) for each in helper.asked if isinstance(each, wire.CloseInstance | wire.StartInstance)]
    assert kinds[-3:] == [wire.StartInstance, wire.CloseInstance, wire.StartInstance]
    await context.store.instances.begin_destroying(instance.id)
    with pytest.raises(WrongState):
        await instances.restart(context, CALLER, instance.id)


async def test_a_stopped_instance_can_be_destroyed(context: Context, helper: FakeHelper) -> None:
    instance = await stopped(context, helper)
    await instances.destroy(context, Caller(CALLER.name, Role.ADMIN, Reach.ALL), instance.id)
    assert not helper.disk.instances


def test_an_instance_stays_full_until_below_nine_tenths() -> None:
    full = Fullness(full=True)
    assert disk.judge(Fullness(), 99, 100, failed=False) == Fullness()
    assert disk.judge(Fullness(), 100, 100, failed=False) == full
    assert disk.judge(full, 90, 100, failed=False) == full
    assert disk.judge(full, 89, 100, failed=True) == Fullness()
    assert disk.judge(full, 95, 100, failed=True) == Fullness(full=True, reserve_granted=True)


def test_instances_that_wrote_at_least_half_as_much_as_the_largest_writer_are_stopped() -> None:
    mib = 1024 * 1024
    now = {1: 1000 * mib, 2: 160 * mib, 3: 100 * mib, 4: 79 * mib}
    assert disk.writers({1: 990 * mib}, now, {1, 2, 3, 4}) == {2: 160 * mib, 3: 100 * mib}
    assert disk.writers({}, {1: 10 * mib}, {1}) == {}
    assert disk.writers({}, now, set()) == {}
