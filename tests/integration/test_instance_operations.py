from __future__ import annotations

import asyncio
import dataclasses

import psycopg
import pytest
from cryptography import x509

from draupnir.callers import Caller, Role
from draupnir.errors import (
    DirectRefused,
    Forbidden,
    HelperUnavailable,
    ImageNotReady,
    NoFreePort,
    NoRoom,
    NotFound,
    PostgresMissing,
    WrongState,
)
from draupnir.models import InstanceStatus, Network, Shape
from draupnir.operations import images, instances, reconcile
from draupnir.operations.context import Context
from draupnir.operations.lifecycle import PORTS_TRIED
from draupnir.operations.superusers import ImageNotProved, SuperuserNotAllowed
from draupnir_helper import wire
from draupnir_helper.wire import ErrorCode, JobKind
from tests.daemon import CALLER, assert_lawful, converge, new_instance, ready_image, until, uploaded_image
from tests.fakes import FakeHelper, Refused

pytestmark = pytest.mark.anyio


async def test_an_instance_runs_on_a_port_of_the_range_with_its_own_credentials(
    context: Context, helper: FakeHelper
) -> None:
    image = await ready_image(context)
    instance, credentials = await instances.create(context, CALLER, image.id)
    assert instance.status is InstanceStatus.RUNNING
    assert instance.port in context.settings.instance_ports
    started = helper.disk.started[instance.id]
    assert not started.loopback_only
    assert started.authority_certificate == credentials.ca_certificate == instance.authority.certificate
    ca = x509.load_pem_x509_certificate(credentials.ca_certificate.encode())
    for pem in (started.server_certificate, credentials.client_certificate):
        x509.load_pem_x509_certificate(pem.encode()).verify_directly_issued_by(ca)
    again, others = await instances.get(context, CALLER, instance.id)
    assert again == instance
    assert others is not None
    assert others.ca_certificate == credentials.ca_certificate
    assert others.client_certificate != credentials.client_certificate


async def test_a_port_is_never_given_twice(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    ports = context.settings.instance_ports
    outcomes = await asyncio.gather(
        *(instances.create(context, CALLER, image.id) for _ in range(len(ports) + 5)), return_exceptions=True
    )
    failures = [it for it in outcomes if isinstance(it, BaseException)]
    assert [type(it) for it in failures] == [NoFreePort] * 5
    assert sorted(helper.disk.listening.values()) == list(ports)
    await converge(context)
    await assert_lawful(context)


async def test_of_two_creates_with_one_port_left_one_wins(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    made = [await new_instance(context, image) for _ in context.settings.instance_ports]
    for _ in range(10):
        await instances.destroy(context, CALLER, made.pop().id)
        outcomes = await asyncio.gather(
            *(instances.create(context, CALLER, image.id) for _ in range(2)), return_exceptions=True
        )
        winners = [it[0] for it in outcomes if not isinstance(it, BaseException)]
        assert [type(it) for it in outcomes if isinstance(it, BaseException)] == [NoFreePort]
        made = winners + made


async def test_a_port_of_another_program_is_skipped(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    ports = list(context.settings.instance_ports)
    helper.foreign_ports = set(ports[: PORTS_TRIED - 1])
    for _ in range(len(ports) - PORTS_TRIED + 1):
        assert (await new_instance(context, image)).port not in helper.foreign_ports
    with pytest.raises(NoFreePort):
        await new_instance(context, image)
    await converge(context)
    await assert_lawful(context)


async def test_too_many_foreign_ports_are_reported_and_leave_nothing(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    helper.foreign_ports = set(context.settings.instance_ports)
    with pytest.raises(NoFreePort, match="Other programs"):
        await new_instance(context, image)
    assert await context.store.instances.list_all() == []
    await converge(context)
    await assert_lawful(context)


@pytest.mark.parametrize(
    ("code", "error"), [(ErrorCode.NO_ROOM, NoRoom), (ErrorCode.POSTGRES_MISSING, PostgresMissing)]
)
async def test_a_creation_that_fails_leaves_nothing(
    context: Context, helper: FakeHelper, code: ErrorCode, error: type[Exception]
) -> None:
    image = await ready_image(context)

    def refuse(_: wire.AnyRequest) -> wire.Wire:
        raise Refused(code)

    helper.answers[wire.StartInstance] = refuse
    with pytest.raises(error):
        await new_instance(context, image)
    assert await context.store.instances.list_all() == []
    await converge(context)
    await assert_lawful(context)


async def test_a_creation_without_a_helper_leaves_nothing_once_it_is_back(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    helper.away = True
    with pytest.raises(HelperUnavailable):
        await new_instance(context, image)
    helper.away = False
    await converge(context)
    assert await context.store.instances.list_all() == []
    await assert_lawful(context)


async def test_only_a_ready_image_has_instances(context: Context) -> None:
    image = await uploaded_image(context)
    with pytest.raises(ImageNotReady, match="awaiting_upload"):
        await new_instance(context, image)


async def test_an_instance_destroyed_during_its_creation_is_gone(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    arrived, go_on = helper.hold(wire.StartInstance)
    creating = asyncio.create_task(instances.create(context, CALLER, image.id))
    await arrived.wait()
    (instance,) = await instances.list_own(context, CALLER)
    destroying = [asyncio.create_task(instances.destroy(context, CALLER, instance.id)) for _ in range(2)]

    async def meant_to_go() -> bool:
        return (await instances.get(context, CALLER, instance.id))[0].status is InstanceStatus.DESTROYING

    await until(meant_to_go)
    go_on.set()
    await asyncio.gather(*destroying)
    with pytest.raises(WrongState, match="was destroyed"):
        await creating
    await converge(context)
    await assert_lawful(context)
    assert not helper.disk.instances


async def test_an_instance_can_be_destroyed_twice(context: Context, helper: FakeHelper) -> None:
    instance = await new_instance(context, await ready_image(context))
    await asyncio.gather(*(instances.destroy(context, CALLER, instance.id) for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(it, wire.DestroyInstance) and it.instance_id == instance.id for it in helper.asked) == 1
    with pytest.raises(NotFound):
        await instances.destroy(context, CALLER, instance.id)
    await converge(context)
    await assert_lawful(context)


async def test_an_instance_of_another_user_is_not_found(context: Context) -> None:
    image = await ready_image(context)
    ann, bob = Caller("ann@example.org", Role.USER), Caller("bob@example.org", Role.USER)
    hers, _ = await instances.create(context, ann, image.id)
    assert await instances.list_own(context, ann) == await instances.list_everybodys(context, CALLER) == [hers]
    assert await instances.list_own(context, bob) == await instances.list_own(context, CALLER) == []
    with pytest.raises(Forbidden):
        await instances.list_everybodys(context, bob)
    with pytest.raises(NotFound):
        await instances.get(context, bob, hers.id)
    with pytest.raises(NotFound):
        await instances.destroy(context, bob, hers.id)
    await instances.destroy(context, ann, hers.id)


async def test_a_trial_has_no_owner_and_listens_only_on_loopback(context: Context, helper: FakeHelper) -> None:
    image = await uploaded_image(context)
    arrived, go_on = helper.hold(wire.StartInstance)
    await images.finalise(context, image.id, wait=False)
    await arrived.wait()
    (trial,) = await context.store.instances.list_all()
    assert await instances.list_own(context, CALLER) == []
    with pytest.raises(NotFound):
        await instances.get(context, CALLER, trial.id)
    with pytest.raises(NotFound):
        await instances.destroy(context, CALLER, trial.id)
    async with asyncio.timeout(5):
        await reconcile.reconcile_once(context)
    assert await context.store.instances.list_all() == [trial]
    go_on.set()
    await images.finalise(context, image.id, wait=True)
    assert helper.disk.started[trial.id].loopback_only
    await converge(context)
    await assert_lawful(context)


def allowing_superusers(context: Context, helper: FakeHelper) -> Context:
    """Return the context of an operator who allows them."""
    helper.allow_superuser = True
    return dataclasses.replace(context, settings=context.settings.model_copy(update={"allow_superuser": True}))


async def test_superusers_need_the_permission_of_the_operator(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    with pytest.raises(SuperuserNotAllowed, match="allow_superuser"):
        await instances.create(context, CALLER, image.id, Shape(0, superuser=True))
    assert await instances.list_own(context, CALLER) == []
    generous = allowing_superusers(context, helper)
    instance, _ = await instances.create(generous, CALLER, image.id, Shape(0, superuser=True))
    assert instance.shape.superuser
    assert helper.disk.superusers == {instance.id}
    plain, _ = await instances.create(generous, CALLER, image.id)
    assert not plain.shape.superuser
    # The instance keeps its superuser when the operator changes the configuration.
    helper.allow_superuser = False
    await instances.restart(context, CALLER, instance.id)
    started = [request.superuser for request in helper.asked if isinstance(request, wire.StartInstance)]
    assert started[-3:] == [True, False, True]


async def test_superusers_need_a_proved_image(context: Context, helper: FakeHelper) -> None:
    generous = allowing_superusers(context, helper)
    report = helper.reports[JobKind.FINALISE]
    helper.reports[JobKind.FINALISE] = report.model_copy(update={"proved": False})
    image = await ready_image(context)
    with pytest.raises(ImageNotProved, match="not proved"):
        await instances.create(generous, CALLER, image.id, Shape(0, superuser=True))
    with pytest.raises(ImageNotReady):
        await instances.create(generous, CALLER, (await uploaded_image(context)).id, Shape(0, superuser=True))
    with pytest.raises(NotFound):
        await instances.create(generous, CALLER, 999, Shape(0, superuser=True))
    await new_instance(generous, image)


async def test_direct_instances_need_the_permission_of_the_operator(context: Context) -> None:
    image = await ready_image(context)
    strict = dataclasses.replace(context, settings=context.settings.model_copy(update={"direct_instances": False}))
    with pytest.raises(DirectRefused, match="direct_instances"):
        await instances.create(strict, CALLER, image.id, Shape(0, Network.DIRECT))
    assert await instances.list_own(context, CALLER) == []


async def test_an_unknown_setting_does_not_prevent_a_start(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    shape = Shape(0, parameters={"work_mem": "64MB"})
    instance, _ = await instances.create(context, CALLER, image.id, shape)
    assert helper.disk.started[instance.id].parameters == {"work_mem": "64MB"}
    with psycopg.connect(context.settings.dsn) as connection:
        connection.execute("""UPDATE instances SET settings = settings || '{"former_setting": "on"}'""")
    await instances.restart(context, CALLER, instance.id)
    assert helper.disk.started[instance.id].parameters == {"work_mem": "64MB"}
