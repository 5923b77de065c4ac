"""The stories of instances: a row with a port, a copy of the image, its units; and back."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection
from functools import partial

from draupnir import certificates
from draupnir.addresses import Address
from draupnir.errors import (
    CeilingTooHigh,
    DirectRefused,
    DraupnirError,
    Forbidden,
    NoFreePort,
    NoRoom,
    NotFound,
    Unavailable,
    WrongState,
)
from draupnir.helper import PortInUse
from draupnir.lifecycles import INSTANCES, Change, Undo
from draupnir.models import (
    Caller,
    Condition,
    Credentials,
    Habits,
    Image,
    Instance,
    InstanceStatus,
    Network,
    Observation,
    Purpose,
)
from draupnir.operations import addresses, authorities, disk, ids, trash
from draupnir.operations.context import Context
from draupnir.operations.tasks import Subject
from draupnir_helper import wire

# A port may be held by a process that the metadata knows nothing of; so many may be met before giving up.
PORTS_TRIED = 5

# Who owns what is not made for anybody.
NOBODY = "draupnir"

_CONDITIONS = {
    InstanceStatus.CREATING: Condition.CREATING,
    InstanceStatus.STOPPED: Condition.STOPPED,
    InstanceStatus.CLOSED: Condition.CLOSED,
    InstanceStatus.DESTROYING: Condition.DESTROYING,
}

log = logging.getLogger(__name__)


async def create(
    context: Context, caller: Caller, image_id: int, habits: Habits | None = None, source: Address | None = None
) -> tuple[Instance, Credentials]:
    """A running instance of a ready image, from the pool where there is one, and what it takes to sign in.

    Its port admits `source` from the first moment.
    Raises NotFound, ImageNotReady, DirectRefused, CeilingTooHigh, NoFreePort, NoFreeId, TooManyInstances, NoRoom,
    Unavailable.
    """
    instance = None
    usual = await default_habits(context)
    habits = await settled(context, habits or usual)
    if habits.network is Network.DIRECT and not context.settings.direct_instances:
        raise DirectRefused(
            "Instances with network `direct` could reach out into the network of the server; its operator may allow"
            " them by direct_instances = true in /etc/draupnir/config.toml."
        )
    await disk.require_room(context)
    if habits == usual:
        instance = await _claim(context, caller, image_id, source)
    if instance is None:
        reserved = await _reserve_for(context, caller, image_id, habits)
        await addresses.note(context, reserved, source)
        instance = await bring_up(context, reserved.id)
    return instance, authorities.issue_client(context, instance)


async def default_habits(context: Context) -> Habits:
    """What whoever asks for nothing else gets, and every instance of the pool has. Raises Unavailable."""
    return Habits(context.settings.sleep_after_s, max_bytes=(await disk.room(context)).max_instance_bytes)


async def settled(context: Context, habits: Habits) -> Habits:
    """The habits with a ceiling, the usual one where none is asked for. Raises CeilingTooHigh, Unavailable."""
    highest = (await disk.room(context)).max_instance_bytes
    if habits.max_bytes is None:
        return dataclasses.replace(habits, max_bytes=highest)
    if habits.max_bytes > highest:
        raise CeilingTooHigh(
            f"An instance may write up to {highest} bytes here, and {habits.max_bytes} were asked for; ask for less,"
            " or have the operator raise max_instance_bytes in /etc/draupnir/config.toml."
        )
    return habits


async def get(
    context: Context, caller: Caller, instance_id: int, source: Address | None = None
) -> tuple[Instance, Credentials | None]:
    """One of the instances in the caller's reach, for its owner with fresh credentials, and its port open to `source`.

    Raises NotFound, Unavailable.
    """
    instance = await reached(context, caller, instance_id)
    if instance.owner != caller.name or caller.read_only or instance.status is InstanceStatus.CLOSED:
        return instance, None
    if await addresses.note(context, instance, source):
        await addresses.apply(context, instance)
    return instance, authorities.issue_client(context, instance)


async def list_own(context: Context, caller: Caller) -> list[Instance]:
    """The caller's instances, by id."""
    return await context.store.instances.list_used(caller.name)


async def list_everybodys(context: Context, caller: Caller) -> list[Instance]:
    """All instances that belong to somebody, by id. Raises Forbidden."""
    if caller.confined_to is not None:
        raise Forbidden("Only an admin can see everybody's instances; leave out `all` to see your own.")
    return await context.store.instances.list_used(None)


async def destroy(context: Context, caller: Caller, instance_id: int) -> None:
    """Gone when this returns, and never back once it was accepted. Raises NotFound, Unavailable."""
    instance = await reached(context, caller, instance_id)
    await context.store.instances.begin_destroying(instance.id)
    await tear_down(context, instance.id)


async def reserve_trial(context: Context, image: Image) -> Instance:
    """A row and a port for the trial boot of an image. Raises NoFreePort, ImageNotReady if it is being destroyed."""
    return await _reserve(context, image.id, NOBODY, Purpose.TRIAL, await settled(context, Habits(0)))


async def reserve_pooled(context: Context, image_id: int) -> Instance:
    """A row and a port for an instance that is nobody's yet. Raises NotFound, ImageNotReady, NoFreePort."""
    return await _reserve(context, image_id, NOBODY, Purpose.POOL, await default_habits(context))


async def wake(context: Context, instance: Instance) -> None:
    """Start its Postgres by a connection, as anybody does; what keeps it from waking shows when it is observed."""
    await context.knock(instance.port)


async def observe(context: Context, found: Collection[Instance]) -> dict[int, Observation]:
    """How each of the instances is; UNKNOWN where the helper cannot tell just now."""
    try:
        observed = await context.helper.ask(wire.ObserveInstances())
    except Unavailable:
        return {each.id: Observation(_CONDITIONS.get(each.status, Condition.UNKNOWN)) for each in found}
    states = {unit.instance_id: unit for unit in observed.instance_units}
    written = {each.instance_id: each.size_bytes for each in observed.written}
    return {
        each.id: Observation(
            _CONDITIONS.get(each.status) or _condition(each, states.get(each.id)), written.get(each.id)
        )
        for each in found
    }


async def restart(context: Context, caller: Caller, instance_id: int) -> Instance:
    """Open the port again of an instance that was stopped, or stop and start one that runs; its data stay.

    Raises NotFound, WrongState, NoRoom, Unavailable, or what keeps it from starting: then the reconciler goes on.
    """
    instance = await reached(context, caller, instance_id)
    if instance.status not in {InstanceStatus.RUNNING, InstanceStatus.STOPPED}:
        raise WrongState(f"Instance {instance_id} is {instance.status}; only one that runs or is stopped can restart.")
    critical_bytes = (await disk.room(context)).critical_bytes
    if instance.status is InstanceStatus.STOPPED and await disk.shortage(context, critical_bytes):
        raise NoRoom(
            f"Instance {instance_id} was stopped since the data disk was full, and it still is; destroy instances or"
            " images, or have the operator give it more room."
        )
    await context.tasks.run("restart", Subject("instance", instance_id), lambda: _restart(context, instance_id))
    return await reached(context, caller, instance_id)


async def bring_up(context: Context, instance_id: int) -> Instance:
    """Finish the creation of an instance whose row is there, or join who does; undone if it cannot be finished."""
    subject = Subject("instance", instance_id)
    return await context.tasks.run("create", subject, lambda: _bring_up(context, instance_id))


async def start_again(context: Context, instance_id: int) -> None:
    """Open the port of an instance that is meant to run; its data stay as they are."""
    subject = Subject("instance", instance_id)
    await context.tasks.run("start", subject, lambda: _start_again(context, instance_id))


async def tear_down(context: Context, instance_id: int) -> None:
    """Finish the destruction of an instance that is meant to be gone, or join who does."""
    subject = Subject("instance", instance_id)
    await context.tasks.run("destroy", subject, lambda: _tear_down(context, instance_id))


async def reached(context: Context, caller: Caller, instance_id: int) -> Instance:
    """The instance, if it is in the caller's reach. Raises NotFound."""
    instance = await context.store.instances.get_used(instance_id, caller.confined_to)
    if instance is None:
        raise NotFound(f"There is no instance {instance_id} of yours; `draupnir-client instances list` shows those.")
    return instance


async def write_down_owner(context: Context, instance_id: int) -> None:
    """Have the manifest beside the data say whose a running instance is by now."""
    subject = Subject("instance", instance_id)
    await context.tasks.run("assign", subject, lambda: _write_down_owner(context, instance_id))


async def pooled(context: Context) -> list[Instance]:
    """The instances of the pool, by id."""
    found = await context.store.instances.list_all()
    return [each for each in found if each.purpose is Purpose.POOL and each.status is not InstanceStatus.DESTROYING]


async def give_up_pooled(context: Context, instance: Instance) -> bool:
    """Destroy an instance of the pool; False if somebody has claimed it meanwhile."""
    given_up = await context.store.instances.give_up_pooled(instance.id)
    if given_up:
        await tear_down(context, instance.id)
    return given_up


async def _reserve_for(context: Context, caller: Caller, image_id: int, habits: Habits) -> Instance:
    """A row and a port; the pool has ports only as long as nobody else needs them."""
    while True:
        try:
            return await _reserve(context, image_id, caller.name, Purpose.USE, habits)
        except NoFreePort:
            for instance in await pooled(context):
                if await give_up_pooled(context, instance):
                    break
            else:
                raise


async def _claim(context: Context, caller: Caller, image_id: int, source: Address | None) -> Instance | None:
    """An instance of the pool, now the caller's; None if there is none. One still being created is waited for."""
    limit = context.settings.instance_limit(caller.name)
    instance = await context.store.instances.claim(image_id, caller.name, await default_habits(context), limit)
    if instance is None:
        return None
    context.vacancies.set()
    instance = await bring_up(context, instance.id)
    if await addresses.note(context, instance, source):
        await addresses.apply(context, instance)
    state = await _assign(context, instance)
    if not state.listening:
        await start_again(context, instance.id)
    await wake(context, instance)
    return instance


async def _assign(context: Context, instance: Instance) -> wire.InstanceState:
    return await context.helper.ask(
        wire.AssignInstance(
            instance_id=instance.id,
            image_id=instance.image_id,
            owner=instance.owner,
            port=instance.port,
            created_at=instance.created_at,
        )
    )


async def _reserve(context: Context, image_id: int, owner: str, purpose: Purpose, habits: Habits) -> Instance:
    return await context.store.instances.insert(
        image_id,
        owner,
        purpose,
        habits,
        partial(authorities.create, context),
        context.settings.instance_ports,
        context.settings.instance_limit(owner) if purpose is Purpose.USE else None,
        await ids.of_instances(context),
    )


async def _bring_up(context: Context, instance_id: int) -> Instance:
    instance = await context.store.instances.get(instance_id)
    if instance is not None and instance.status is InstanceStatus.RUNNING:
        return instance
    if instance is None or instance.status is InstanceStatus.DESTROYING:
        raise _destroyed_meanwhile(instance_id)
    try:
        await _copy_and_start(context, instance)
    except DraupnirError:
        await _undo(context, instance_id, INSTANCES[None, InstanceStatus.CREATING])
        raise
    if not await context.store.instances.change_status(instance_id, InstanceStatus.CREATING, InstanceStatus.RUNNING):
        # Whoever destroys it waits for this task to end, then takes it down.
        raise _destroyed_meanwhile(instance_id)
    running = await context.store.instances.get(instance_id)
    if running is None:
        raise _destroyed_meanwhile(instance_id)
    return running


async def _copy_and_start(context: Context, instance: Instance) -> None:
    refused: list[int] = []
    while True:
        try:
            await _start(context, instance, new=True)
            await wake(context, instance)
            return
        except PortInUse:
            refused.append(instance.port)
            if len(refused) == PORTS_TRIED:
                raise NoFreePort(
                    f"Other programs on the server hold the ports {', '.join(map(str, refused))};"
                    " move min_instance_port and max_instance_port in /etc/draupnir/config.toml out of their way."
                ) from None
        moved = await context.store.instances.move(instance, context.settings.instance_ports, refused)
        if moved is None or moved.status is not InstanceStatus.CREATING:
            raise _destroyed_meanwhile(instance.id)
        instance = moved


async def _start(context: Context, instance: Instance, *, new: bool) -> None:
    max_bytes = instance.habits.max_bytes
    server = certificates.issue_server(authorities.opened(context, instance), context.settings.public_hostname)
    await context.helper.ask(
        wire.StartInstance(
            instance_id=instance.id,
            image_id=instance.image_id,
            owner=instance.owner,
            port=instance.port,
            created_at=instance.created_at,
            new=new,
            postgres_major=instance.postgres_major,
            loopback_only=instance.purpose is Purpose.TRIAL,
            addresses=await addresses.admitted(context, instance),
            sleep_after_s=instance.habits.sleep_after_s,
            direct=instance.habits.network is Network.DIRECT,
            ceiling=None if max_bytes is None else disk.ceiling_of(max_bytes, instance.fullness),
            authority_certificate=instance.authority.certificate,
            server_certificate=server.certificate,
            server_key=server.key,
        )
    )


async def _undo(context: Context, instance_id: int, change: Change) -> None:
    """Take back a change whose work failed, as the life cycle has it. What cannot be done now, the reconciler does."""
    if change.undo is not Undo.DESTROY:
        return
    try:
        await context.store.instances.begin_destroying(instance_id)
        await _tear_down(context, instance_id)
    except DraupnirError as error:
        log.warning("instance %s is left to the reconciler: %s", instance_id, error.detail)


async def _start_again(context: Context, instance_id: int) -> None:
    instance = await context.store.instances.get(instance_id)
    if instance is not None and instance.status is InstanceStatus.RUNNING:
        await _start(context, instance, new=False)


async def _restart(context: Context, instance_id: int) -> None:
    await context.helper.ask(wire.CloseInstance(instance_id=instance_id))
    await context.store.instances.change_status(instance_id, InstanceStatus.STOPPED, InstanceStatus.RUNNING)
    await _start_again(context, instance_id)
    instance = await context.store.instances.get(instance_id)
    if instance is not None and instance.status is InstanceStatus.RUNNING:
        await wake(context, instance)


async def _write_down_owner(context: Context, instance_id: int) -> None:
    instance = await context.store.instances.get(instance_id)
    if instance is not None and instance.status is InstanceStatus.RUNNING:
        await _assign(context, instance)


async def _tear_down(context: Context, instance_id: int) -> None:
    instance = await context.store.instances.get(instance_id)
    if instance is not None and instance.status is InstanceStatus.DESTROYING:
        await context.helper.ask(wire.DestroyInstance(instance_id=instance_id))
        await context.store.instances.delete(instance_id)
        trash.empty(context)


def _condition(instance: Instance, state: wire.InstanceState | None) -> Condition:
    """Of an instance that is meant to run."""
    match state:
        case wire.InstanceState(postgres="failed") | wire.InstanceState(listening=False) | None:
            return Condition.FAILED
        case _ if instance.fullness.full:
            return Condition.FULL
        case wire.InstanceState(postgres="inactive"):
            return Condition.ASLEEP
        case _:
            return Condition.RUNNING


def _destroyed_meanwhile(instance_id: int) -> WrongState:
    return WrongState(f"Instance {instance_id} was destroyed while it was being created; create another one.")
