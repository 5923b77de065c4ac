"""The life cycle of an instance: reserve a row and a port, copy the image, start its units, restart, destroy.

Every function is idempotent and continues interrupted work. instances.py decides who may call it.
"""

from __future__ import annotations

import logging
from functools import partial

from draupnir import certificates
from draupnir.errors import DraupnirError, NoFreePort, WrongState
from draupnir.helper import PortInUse
from draupnir.lifecycles import INSTANCES, Change, Undo
from draupnir.models import Image, Instance, InstanceStatus, Network, Purpose, Shape
from draupnir.operations import addresses, authorities, disk, ids, parameters, shapes, trash
from draupnir.operations.context import Context
from draupnir.operations.tasks import Subject, Work
from draupnir_helper import wire

# Other programs may use ports of the range. A creation fails after this many used ports.
PORTS_TRIED = 5

# The owner of instances without a user.
NOBODY = "draupnir"

log = logging.getLogger(__name__)


async def reserve(context: Context, image_id: int, owner: str, purpose: Purpose, shape: Shape) -> Instance:
    """Reserve a row and a port.

    Raises NotFound, ImageNotReady, NoFreePort, NoFreeId, TooManyInstances, Unauthorized.
    """
    return await context.store.instances.insert(
        image_id,
        owner,
        purpose,
        shape,
        partial(authorities.create, context),
        context.settings.instance_ports,
        context.settings.instance_limit(owner) if purpose is Purpose.USE else None,
        await ids.of_instances(context),
    )


async def reserve_trial(context: Context, image: Image) -> Instance:
    """Reserve a row and a port for the trial boot. Raises NoFreePort, or ImageNotReady if the image is destroyed."""
    return await reserve(context, image.id, NOBODY, Purpose.TRIAL, await shapes.with_ceiling(context, Shape(0)))


async def wake(context: Context, instance: Instance) -> None:
    """Start the instance's Postgres by a connection, like a client. A failure shows in its observed state."""
    await context.wake(instance.port)


async def bring_up(context: Context, instance_id: int) -> Instance:
    """Finish the creation of a reserved instance, or join a running creation. Roll it back after a failure."""
    subject = Subject("instance", instance_id)
    return await context.tasks.run(Work.CREATE_INSTANCE, subject, lambda: _bring_up(context, instance_id))


async def start_again(context: Context, instance_id: int) -> None:
    """Open the port of an instance that should run. The data stay."""
    subject = Subject("instance", instance_id)
    await context.tasks.run(Work.START, subject, lambda: _start_again(context, instance_id))


async def restart(context: Context, instance_id: int) -> None:
    """Restart a running instance, or start a stopped one. The data stay."""
    await context.tasks.run(Work.RESTART, Subject("instance", instance_id), lambda: _restart(context, instance_id))


async def tear_down(context: Context, instance_id: int) -> None:
    """Finish the destruction of an instance, or join a running destruction."""
    subject = Subject("instance", instance_id)
    await context.tasks.run(Work.DESTROY_INSTANCE, subject, lambda: _tear_down(context, instance_id))


async def write_down_owner(context: Context, instance_id: int) -> None:
    """Write the current owner of a running instance to its manifest."""
    subject = Subject("instance", instance_id)
    await context.tasks.run(Work.ASSIGN, subject, lambda: _write_down_owner(context, instance_id))


async def assign(context: Context, instance: Instance) -> wire.InstanceState:
    """Have the helper record the owner of the instance, and return the state of its units."""
    return await context.helper.ask(
        wire.AssignInstance(
            instance_id=instance.id,
            image_id=instance.image_id,
            owner=instance.owner,
            port=instance.port,
            created_at=instance.created_at,
        )
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
        # A destroy waits for the end of this task, then removes the instance.
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
                    f"Other programs on the server use the ports {', '.join(map(str, refused))};"
                    " choose another range with min_instance_port and max_instance_port in /etc/draupnir/config.toml."
                ) from None
        moved = await context.store.instances.move(instance, context.settings.instance_ports, refused)
        if moved is None or moved.status is not InstanceStatus.CREATING:
            raise _destroyed_meanwhile(instance.id)
        instance = moved


async def _start(context: Context, instance: Instance, *, new: bool) -> None:
    max_bytes = instance.shape.max_bytes
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
            sleep_after_s=instance.shape.sleep_after_s,
            direct=instance.shape.network is Network.DIRECT,
            superuser=instance.shape.superuser,
            ceiling=None if max_bytes is None else disk.ceiling_of(max_bytes, instance.fullness),
            parameters=parameters.of_instance(instance),
            authority_certificate=instance.authority.certificate,
            server_certificate=server.certificate,
            server_key=server.key,
        )
    )


async def _undo(context: Context, instance_id: int, change: Change) -> None:
    """Roll back a change whose work failed, as the life cycle defines. If that fails, the reconciler does it."""
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
        await assign(context, instance)


async def _tear_down(context: Context, instance_id: int) -> None:
    instance = await context.store.instances.get(instance_id)
    if instance is not None and instance.status is InstanceStatus.DESTROYING:
        await context.helper.ask(wire.DestroyInstance(instance_id=instance_id))
        await context.store.instances.delete(instance_id)
        trash.empty(context)


def _destroyed_meanwhile(instance_id: int) -> WrongState:
    return WrongState(f"Instance {instance_id} was destroyed while it was being created; create another one.")
