from __future__ import annotations

import asyncio
import logging

import psycopg
import pytest

from draupnir.errors import StorageMissing
from draupnir.models import ImageStatus, InstanceStatus
from draupnir.operations import images, instances, reconcile
from draupnir.operations.context import Context
from draupnir_helper import wire
from draupnir_helper.wire import ErrorCode
from tests.daemon import (
    CALLER,
    assert_lawful,
    converge,
    end,
    new_instance,
    ready_image,
    settle,
    until,
    uploaded_image,
)
from tests.fakes import FakeHelper, Refused

pytestmark = pytest.mark.anyio


def asked_since(helper: FakeHelper, number: int) -> set[type[wire.AnyRequest]]:
    return {type(request) for request in helper.asked[number:]}


async def test_a_consistent_state_is_left_unchanged(context: Context, helper: FakeHelper) -> None:
    await uploaded_image(context)
    await new_instance(context, await ready_image(context))
    await converge(context)
    number = len(helper.asked)
    await reconcile.reconcile_once(context)
    await settle(context)
    assert asked_since(helper, number) == {wire.TakeInventory}


async def test_after_a_reboot_every_instance_is_back_on_its_port(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    made = [await new_instance(context, image) for _ in context.settings.instance_ports]
    certificates = {it.id: helper.disk.started[it.id].server_certificate for it in made}
    helper.reboot()
    await reconcile.reconcile_once(context)
    assert helper.disk.listening == {it.id: it.port for it in made}
    for it in made:
        started = helper.disk.started[it.id]
        assert started.authority_certificate == it.authority.certificate
        assert started.server_certificate != certificates[it.id]
    await assert_lawful(context)


async def test_an_instance_that_cannot_start_does_not_block_others(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    made = [await new_instance(context, image) for _ in range(3)]
    helper.reboot()
    helper.foreign_ports = {made[0].port}
    await reconcile.reconcile_once(context)
    assert helper.disk.listening.keys() == {made[1].id, made[2].id}
    assert (await instances.get(context, CALLER, made[0].id))[0] == made[0]
    helper.foreign_ports = set()
    await reconcile.reconcile_once(context)
    await assert_lawful(context)


async def test_nothing_unknown_is_ever_deleted(
    context: Context, helper: FakeHelper, caplog: pytest.LogCaptureFixture
) -> None:
    disk = helper.disk
    disk.uploads[71], disk.seals[72], disk.work[73], disk.images[74] = "a", "b", "c", "d"
    disk.instances[75] = disk.listening[75] = 20000
    complaints = reconcile.Complaints()
    for _ in range(2):
        await reconcile.reconcile_once(context, complaints)
        await settle(context)
    assert (disk.uploads, disk.seals, disk.work, disk.images) == ({71: "a"}, {72: "b"}, {73: "c"}, {74: "d"})
    assert disk.instances == disk.listening == {75: 20000}
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    # Each is logged once.
    assert len(told) == 5
    for number in range(71, 76):
        assert any(str(number) in message for message in told)


async def test_units_without_data_and_metadata_are_stopped(context: Context, helper: FakeHelper) -> None:
    living = await new_instance(context, await ready_image(context))
    await converge(context)
    helper.disk.listening[75] = 20000
    await reconcile.reconcile_once(context)
    assert helper.disk.listening == {living.id: living.port}


async def test_units_of_an_instance_that_has_lost_its_data_are_left_alone(context: Context, helper: FakeHelper) -> None:
    """Its owner and the operator have to decide."""
    living = await new_instance(context, await ready_image(context))
    await converge(context)
    helper.disk.instances.clear()
    await reconcile.reconcile_once(context)
    assert helper.disk.listening == {living.id: living.port}


async def test_lost_data_is_reported_and_not_touched(
    context: Context, helper: FakeHelper, caplog: pytest.LogCaptureFixture
) -> None:
    image = await ready_image(context)
    instance = await new_instance(context, image)
    await converge(context)
    helper.disk.images.clear()
    helper.disk.instances.clear()
    helper.disk.listening.clear()
    number = len(helper.asked)
    await reconcile.reconcile_once(context, reconcile.Complaints())
    await settle(context)
    assert asked_since(helper, number) == {wire.TakeInventory}
    assert (await images.get(context, image.id)).status is ImageStatus.READY
    assert (await instances.get(context, CALLER, instance.id))[0].status is InstanceStatus.RUNNING
    told = " ".join(record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
    assert f"Image {image.id} is ready, but" in told
    assert f"data of instance {instance.id} are not" in told


async def test_without_storage_the_reconciler_does_nothing(context: Context, helper: FakeHelper) -> None:
    await new_instance(context, await ready_image(context))
    await converge(context)
    helper.reboot()

    def refuse(_: wire.AnyRequest) -> wire.Wire:
        raise Refused(ErrorCode.STORAGE_MISSING, "The data disk is not mounted.")

    helper.answers[wire.TakeInventory] = refuse
    number = len(helper.asked)
    with pytest.raises(StorageMissing):
        await reconcile.reconcile_once(context)
    await settle(context)
    assert asked_since(helper, number) == {wire.TakeInventory}


async def test_the_reconciler_never_works_beside_an_operation(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    await converge(context)
    arrived, go_on = helper.hold(wire.StartInstance)
    creating = asyncio.create_task(instances.create(context, CALLER, image.id))
    await arrived.wait()
    number = len(helper.asked)
    async with asyncio.timeout(5):
        await reconcile.reconcile_once(context)
    assert asked_since(helper, number) == {wire.TakeInventory}
    go_on.set()
    await creating
    await assert_lawful(context)


async def test_an_upload_folder_that_went_missing_is_made_again(context: Context, helper: FakeHelper) -> None:
    image = await uploaded_image(context)
    helper.disk.uploads.clear()
    await converge(context)
    assert helper.disk.uploads == {image.id: ""}

    def refuse(_: wire.AnyRequest) -> wire.Wire:
        raise Refused(ErrorCode.NO_ROOM, "The disk is full.")

    helper.disk.uploads.clear()
    helper.answers[wire.CreateUpload] = refuse
    await converge(context)
    # A full disk must not roll back an old image.
    assert (await images.get(context, image.id)).status is ImageStatus.AWAITING_UPLOAD


async def test_the_reconciler_continues_through_outages(
    context: Context, helper: FakeHelper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconcile, "INTERVAL_S", 0.001)
    await new_instance(context, await ready_image(context))
    helper.away = True
    running = asyncio.create_task(reconcile.run(context))
    number = len(helper.asked)

    async def asked_often() -> bool:
        return len(helper.asked) >= number + 5

    await until(asked_often)
    helper.reboot()
    helper.away = False

    async def back() -> bool:
        return bool(helper.disk.listening)

    await until(back)
    await end(running)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "The helper is away."
    ]


async def test_ids_on_the_disk_without_metadata_are_not_reused(context: Context, helper: FakeHelper) -> None:
    """A new image must not get the upload of an old one, nor an instance the data of another."""
    image, instance = next_id(context, "image_ids"), next_id(context, "instance_ids")
    trial = next_id(context, "trial_ids")
    helper.disk.uploads[image] = "of an image that was forgotten"
    helper.disk.seals[image + 1] = "of another"
    helper.disk.instances = {instance: image, instance + 1: image, trial: image}
    # This has to work before the first pass, too.
    made = await ready_image(context)
    assert made.id == image + 2
    assert (await new_instance(context, made)).id == instance + 2
    helper.disk.instances[instance + 3] = image
    await reconcile.reconcile_once(context)
    assert (await new_instance(context, made)).id == instance + 4
    assert helper.disk.uploads[image] == "of an image that was forgotten"
    assert [helper.disk.instances[each] for each in (instance, instance + 1, instance + 3, trial)] == [image] * 4


async def test_an_id_that_is_the_name_of_a_foreign_file_is_not_used(context: Context, helper: FakeHelper) -> None:
    image, instance = next_id(context, "image_ids"), next_id(context, "instance_ids")
    helper.disk.unknown = [f"image_snapshots/{image}", f"instances/{instance}", "instances/lost+found"]
    made = await ready_image(context)
    assert made.id > image
    assert (await new_instance(context, made)).id > instance


async def test_no_id_on_the_disk_exhausts_ids(context: Context, helper: FakeHelper) -> None:
    """Neither the highest id of each range, nor an impossible one."""
    highest = {"image_ids": wire.MAX_ID, "instance_ids": 49_999_999, "trial_ids": wire.MAX_ID}
    helper.disk.uploads[wire.MAX_ID] = "of an image that was forgotten"
    helper.disk.uploads[2**40] = "of none"
    helper.disk.instances = dict.fromkeys([highest["instance_ids"], highest["trial_ids"], 2**40], wire.MAX_ID)
    for sequence, last in highest.items():
        begin_at(context, sequence, last)
    await reconcile.reconcile_once(context)
    made = await ready_image(context)
    assert (made.status, made.id) == (ImageStatus.READY, 1)
    assert (await new_instance(context, made)).id == 1


def next_id(context: Context, sequence: str) -> int:
    with psycopg.connect(context.settings.dsn) as connection:
        row = connection.execute("SELECT nextval(%s) + 1", [sequence]).fetchone()
    assert row is not None
    return int(row[0])


def begin_at(context: Context, sequence: str, some_id: int) -> None:
    with psycopg.connect(context.settings.dsn) as connection:
        connection.execute("SELECT setval(%s, %s, false)", [sequence, some_id])
