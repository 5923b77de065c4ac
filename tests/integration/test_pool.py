"""The pool: instances exist before a request, and never block users."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from draupnir.errors import DraupnirError, NoFreePort
from draupnir.models import Condition, Image, Observation, Purpose, Shape
from draupnir.operations import images, instances, lifecycle, observations, pool, reconcile, shapes
from draupnir.operations.context import Context
from draupnir_helper import wire
from draupnir_helper.wire import ErrorCode
from tests.daemon import CALLER, another_daemon, assert_lawful, new_instance, ready_image, settle, until
from tests.fakes import FakeHelper, Refused

pytestmark = pytest.mark.anyio


@pytest.fixture
async def context(context: Context, monkeypatch: pytest.MonkeyPatch) -> Context:
    """Provide a daemon with a pool of three instances."""
    monkeypatch.setattr(pool, "QUIET_S", 0)
    return configured(context, pool_size=3)


def configured(context: Context, **changed: object) -> Context:
    """Return the same daemon with other settings."""
    return dataclasses.replace(context, settings=context.settings.model_copy(update=changed))


async def pooled_ids(context: Context) -> list[int]:
    return [instance.id for instance in await pool.pooled(context)]


async def test_the_newest_ready_image_has_its_instances(context: Context, helper: FakeHelper) -> None:
    older = await ready_image(context)
    await pool.fill(context)
    assert len(await pooled_ids(context)) == 3
    newer = await ready_image(context)
    await pool.fill(context)
    await settle(context)
    assert {instance.image_id for instance in await pool.pooled(context)} == {newer.id}
    assert older.id not in helper.disk.instances.values()
    await assert_lawful(context)


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_as_many_of_the_newest_images_as_are_configured_have_a_pool(
    context: Context, helper: FakeHelper, number: int
) -> None:
    newest = [await ready_image(context) for _ in range(3)][::-1]
    await pool.fill(context)
    await pool.fill(configured(context, pool_images=number))
    await settle(context)
    assert Counter(helper.disk.instances.values()) == {image.id: 3 for image in newest[:number]}
    assert await pooled_ids(context) == sorted(helper.disk.listening)
    await assert_lawful(context)


async def test_a_claim_needs_neither_a_snapshot_nor_a_start(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    await pool.fill(context)
    number = len(helper.asked)
    instance = await new_instance(context, image)
    assert [type(request) for request in helper.asked[number:]] == [wire.AssignInstance]
    assert (instance.owner, instance.purpose) == (CALLER.name, Purpose.USE)
    assert context.vacancies.is_set()
    await assert_lawful(context)


async def test_the_pool_is_not_listed(context: Context) -> None:
    await ready_image(context)
    await pool.fill(context)
    assert len(await pooled_ids(context)) == 3
    assert await instances.list_own(context, CALLER) == []
    assert await instances.list_everybodys(context, CALLER) == []
    with pytest.raises(Exception, match="not found"):
        await instances.get(context, CALLER, (await pooled_ids(context))[0])


async def test_two_claims_get_different_instances(context: Context) -> None:
    image = await ready_image(context)
    await pool.fill(context)
    made = await asyncio.gather(*(new_instance(context, image) for _ in range(6)))
    assert len({instance.id for instance in made}) == 6
    assert len({instance.port for instance in made}) == 6
    await assert_lawful(context)


async def test_an_instance_in_creation_can_be_claimed(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    arrived, go_on = helper.hold(wire.StartInstance)
    filling = asyncio.create_task(pool.fill(context))
    await arrived.wait()
    claiming = asyncio.create_task(new_instance(context, image))
    await until(lambda: _claimed(context))
    go_on.set()
    instance = await claiming
    await filling
    assert instance.id in helper.disk.listening
    await assert_lawful(context)


async def _claimed(context: Context) -> bool:
    return any(instance.purpose is Purpose.USE for instance in await context.store.instances.list_all())


async def test_other_shapes_than_the_default_are_cold_starts(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    await pool.fill(context)
    instance, _ = await instances.create(context, CALLER, image.id, Shape(60))
    assert helper.disk.started[instance.id].sleep_after_s == 60
    assert len(await pooled_ids(context)) == 3


async def test_a_superuser_does_not_come_from_the_pool(context: Context, helper: FakeHelper) -> None:
    helper.allow_superuser = True
    context = dataclasses.replace(context, settings=context.settings.model_copy(update={"allow_superuser": True}))
    image = await ready_image(context)
    await pool.fill(context)
    usual = await shapes.usual(context)
    pooled = await pooled_ids(context)
    instance, _ = await instances.create(context, CALLER, image.id, dataclasses.replace(usual, superuser=True))
    assert helper.disk.superusers == {instance.id}
    assert await pooled_ids(context) == pooled
    assert await context.store.instances.claim(image.id, CALLER.name, instance.shape, None) is None


async def test_the_pool_follows_a_change_of_the_default_shape(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    await pool.fill(context)
    context = configured(context, sleep_after_s=600)
    await pool.fill(context)
    ready = await pooled_ids(context)
    assert [helper.disk.started[each].sleep_after_s for each in ready] == [600] * 3
    assert (await new_instance(context, image)).id in ready
    await settle(context)
    await assert_lawful(context)


async def test_the_pool_gives_way_when_ports_are_needed(context: Context) -> None:
    image = await ready_image(context)
    await pool.fill(context)
    ports = len(context.settings.instance_ports)
    wished = [await instances.create(context, CALLER, image.id, Shape(60)) for _ in range(ports)]
    assert len(wished) == ports
    assert await pooled_ids(context) == []
    with pytest.raises(NoFreePort):
        await instances.create(context, CALLER, image.id, Shape(60))
    await pool.fill(context)
    await settle(context)
    await assert_lawful(context)


async def test_an_image_is_destroyed_in_spite_of_its_pool(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    await pool.fill(context)
    await images.destroy(context, image.id, cascade=False)
    await settle(context)
    assert not helper.disk.instances
    await assert_lawful(context)


async def test_an_image_destroyed_during_the_refill_leaves_nothing(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    arrived, go_on = helper.hold(wire.StartInstance)
    filling = asyncio.create_task(pool.fill(context))
    await arrived.wait()
    destroying = asyncio.create_task(images.destroy(context, image.id, cascade=False))
    await until(lambda: _no_pool(context))
    go_on.set()
    await destroying
    await asyncio.gather(filling, return_exceptions=True)
    await settle(context)
    assert not helper.disk.instances
    await assert_lawful(context)


async def _no_pool(context: Context) -> bool:
    return not await pooled_ids(context)


async def _one_who_waits(context: Context, helper: FakeHelper, image: Image) -> tuple[asyncio.Task[Any], asyncio.Event]:
    """Start a creation that is blocked; return it, and an event that unblocks it."""
    arrived, go_on = helper.hold(wire.StartInstance)
    waiting = asyncio.create_task(instances.create(context, CALLER, image.id, Shape(60)))
    await arrived.wait()
    del helper.gates[wire.StartInstance]
    return waiting, go_on


@pytest.mark.parametrize("made", [0, 1])
async def test_a_refill_pauses_while_a_caller_waits(context: Context, helper: FakeHelper, made: int) -> None:
    """Only the waiting caller pauses it: otherwise it would finish during three more creations."""
    image = await ready_image(context)
    number = len(helper.asked)
    if made:
        arrived, finish = helper.hold(wire.StartInstance)
        filling = asyncio.create_task(pool.fill(context))
        await arrived.wait()
        waiting, go_on = await _one_who_waits(context, helper, image)
        finish.set()
    else:
        waiting, go_on = await _one_who_waits(context, helper, image)
        filling = asyncio.create_task(pool.fill(context))
    for _ in range(3):
        await instances.create(context, CALLER, image.id, Shape(60))
    assert len(await pooled_ids(context)) == made
    go_on.set()
    await asyncio.gather(waiting, filling)
    assert len(await pooled_ids(context)) == 3
    started = [each.owner for each in helper.asked[number:] if isinstance(each, wire.StartInstance)]
    assert started == [lifecycle.NOBODY] * made + [CALLER.name] * 4 + [lifecycle.NOBODY] * (3 - made)
    await assert_lawful(context)


@pytest.mark.parametrize("pressed", ["memory", "disk"])
async def test_under_pressure_there_is_no_pool(context: Context, helper: FakeHelper, pressed: str) -> None:
    await ready_image(context)
    await pool.fill(context)
    found = helper.inspection()
    if pressed == "memory":
        found = found.model_copy(update={"memory": wire.Memory(total_bytes=100, available_bytes=5)})
    else:
        assert found.storage
        storage = found.storage.model_copy(update={"room": found.storage.room.model_copy(update={"free_bytes": 1})})
        found = found.model_copy(update={"storage": storage})
    helper.answers[wire.Inspect] = lambda _: found
    await pool.fill(context)
    await settle(context)
    assert not helper.disk.instances


@pytest.mark.parametrize("pressed", ["memory", "disk"])
async def test_a_pool_larger_than_the_machine_stops_growing_when_space_is_short(
    context: Context, helper: FakeHelper, pressed: str
) -> None:
    """The pool neither fills the machine nor alternates between creation and destruction."""
    image = await ready_image(context)
    helper.answers[wire.Inspect] = lambda _: _shrinking(helper, pressed, 12 * len(helper.disk.instances))
    context = configured(context, pool_size=9)
    await pool.fill(context)
    made = await pooled_ids(context)
    assert len(made) == 7
    for _ in range(2):
        await pool.fill(context)
        assert await pooled_ids(context) == made
    await instances.create(context, CALLER, image.id, Shape(60))
    await pool.fill(context)
    await settle(context)
    assert await pooled_ids(context) == [], "what people made takes its room"


def _shrinking(helper: FakeHelper, pressed: str, taken: int) -> wire.Inspection:
    """Return a machine with this percentage in use."""
    found = helper.inspection()
    if pressed == "memory":
        return found.model_copy(update={"memory": wire.Memory(total_bytes=100, available_bytes=max(0, 100 - taken))})
    assert found.storage
    room = found.storage.room.model_copy(update={"size_bytes": 100, "free_bytes": max(0, 100 - taken)})
    storage = found.storage.model_copy(update={"room": room})
    return found.model_copy(update={"storage": storage})


async def test_a_pool_larger_than_the_port_range_uses_the_free_ports(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    ports = len(context.settings.instance_ports)
    context = configured(context, pool_size=ports + 5)
    for _ in range(2):
        await pool.fill(context)
        assert len(await pooled_ids(context)) == ports
    claimed = await new_instance(context, image)
    ordered, _ = await instances.create(context, CALLER, image.id, Shape(60))
    assert claimed.port != ordered.port
    await pool.fill(context)
    assert len(await pooled_ids(context)) == ports - 2
    await settle(context)
    await assert_lawful(context)


@pytest.mark.parametrize("refusal", [ErrorCode.NO_ROOM, ErrorCode.UNIT_FAILED, ErrorCode.BUSY])
async def test_a_refill_that_is_refused_leaves_nothing_and_is_tried_again(
    context: Context, helper: FakeHelper, refusal: ErrorCode
) -> None:
    image = await ready_image(context)

    def refuse(_: wire.AnyRequest) -> wire.Wire:
        raise Refused(refusal)

    helper.answers[wire.StartInstance] = refuse
    with pytest.raises(DraupnirError):
        await pool.fill(context)
    await settle(context)
    assert not helper.disk.instances
    del helper.answers[wire.StartInstance]
    await pool.fill(context)
    assert (await new_instance(context, image)).id in helper.disk.listening
    await settle(context)
    await assert_lawful(context)


@pytest.mark.parametrize("jump", [timedelta(days=3650), timedelta(days=-3650)], ids=["ahead", "back"])
async def test_a_clock_jump_neither_loses_nor_duplicates_pooled_instances(
    context: Context, helper: FakeHelper, dsn: str, jump: timedelta
) -> None:
    """Rows with a time in the future or long ago are treated like others."""
    image = await ready_image(context)
    await pool.fill(context)
    before = await pooled_ids(context)
    with psycopg.connect(dsn) as connection:
        for table in ("instances", "images"):
            moved = "created_at = created_at + %(jump)s, updated_at = updated_at + %(jump)s"
            connection.execute(f"UPDATE {table} SET {moved}".encode(), {"jump": jump})
    await reconcile.reconcile_once(context)
    await pool.fill(context)
    assert await pooled_ids(context) == before
    made = await asyncio.gather(*(new_instance(context, image) for _ in before))
    assert sorted(instance.id for instance in made) == before
    await pool.fill(context)
    for instance in made:
        await instances.destroy(context, CALLER, instance.id)
    await settle(context)
    await assert_lawful(context)


async def test_the_pool_survives_a_restart_of_the_daemon(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    await pool.fill(context)
    before = await pooled_ids(context)
    await context.tasks.close()
    later = dataclasses.replace(another_daemon(context, helper.disk), settings=context.settings)
    await reconcile.reconcile_once(later)
    await pool.fill(later)
    assert await pooled_ids(later) == before
    assert (await new_instance(later, image)).id in before


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kill_at", range(3))
async def test_a_daemon_that_dies_in_a_refill_or_a_claim_leaves_nothing_half_done(
    context: Context, helper: FakeHelper, kill_at: int, after: bool
) -> None:
    image = await ready_image(context)
    helper.kill_at, helper.kill_after = len(helper.asked) + kill_at, after
    await asyncio.gather(pool.fill(context), return_exceptions=True)
    await asyncio.gather(new_instance(context, image), return_exceptions=True)
    await context.tasks.close()
    later = another_daemon(context, helper.disk)
    for _ in range(3):
        await reconcile.reconcile_once(later)
        await settle(later)
    await assert_lawful(later)


async def test_a_sleeping_pooled_instance_is_woken(context: Context, helper: FakeHelper) -> None:
    await ready_image(context)
    await pool.fill(context)
    helper.disk.asleep.update(helper.disk.listening)
    await pool.fill(context)
    assert not helper.disk.asleep


async def test_without_pool_awake_a_pooled_instance_sleeps_until_its_claim(
    context: Context, helper: FakeHelper
) -> None:
    image = await ready_image(context)
    context = configured(context, pool_awake=False)
    await pool.fill(context)
    ready = set(await pooled_ids(context))
    helper.disk.asleep.update(ready)
    await pool.fill(context)
    assert helper.disk.asleep == ready
    instance = await new_instance(context, image)
    assert instance.id in ready
    assert await observations.observe(context, [instance]) == {instance.id: Observation(Condition.RUNNING, 0)}
    assert helper.disk.asleep == ready - {instance.id}
    await pool.fill(context)
    assert len(await pooled_ids(context)) == 3
    assert helper.disk.asleep == ready - {instance.id}
    await assert_lawful(context)
