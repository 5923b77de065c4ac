"""Operations of users on instances: create, get, list, restart and destroy."""

from __future__ import annotations

from draupnir.addresses import Address
from draupnir.callers import Caller
from draupnir.errors import Forbidden, NoFreePort, NoRoom, NotFound, WrongState
from draupnir.models import Credentials, Instance, InstanceStatus, Purpose, Shape
from draupnir.operations import (
    addresses,
    authorities,
    database_roles,
    disk,
    images,
    lifecycle,
    parameters,
    pool,
    shapes,
    superusers,
)
from draupnir.operations.context import Context


async def create(
    context: Context,
    caller: Caller,
    image_id: int,
    shape: Shape | None = None,
    client_address: Address | None = None,
    role: str | None = None,
) -> tuple[Instance, Credentials]:
    """Create a running instance of a ready image, if possible from the pool, and return it with credentials.

    Its allowlist has `client_address` from the start.
    Raises NotFound, ImageNotReady, RoleRefused, SettingRefused, SuperuserNotAllowed, ImageNotProved, DirectRefused,
    CeilingTooHigh, NoFreePort, NoFreeId, TooManyInstances, NoRoom, Unavailable.
    """
    if role is not None and (image := await context.store.images.get(image_id)) is not None:
        database_roles.allowed(role, image_id, image.superuser)
    instance = None
    usual = await shapes.usual(context)
    shape = await shapes.allowed(context, shape or usual)
    if shape.parameters:
        parameters.require_startable(await images.get(context, image_id), shape.parameters)
    if shape.superuser:
        superusers.require_proved(await images.get(context, image_id))
    await disk.require_room(context)
    if shape == usual:
        instance = await pool.claim(context, caller, image_id, client_address)
    if instance is None:
        reserved = await _reserve(context, caller, image_id, shape)
        await addresses.note(context, reserved, client_address)
        instance = await lifecycle.bring_up(context, reserved.id)
    return instance, _credentials(context, instance, role)


async def get(
    context: Context, caller: Caller, instance_id: int, client_address: Address | None = None, role: str | None = None
) -> tuple[Instance, Credentials | None]:
    """Return an instance visible to the caller. For the owner, issue credentials and allow their address.

    Raises NotFound, RoleRefused, Unavailable.
    """
    instance = await reached(context, caller, instance_id)
    if instance.owner != caller.name or caller.read_only or instance.status is InstanceStatus.CLOSED:
        return instance, None
    if await addresses.note(context, instance, client_address):
        await addresses.apply(context, instance)
    return instance, _credentials(context, instance, role)


async def list_own(context: Context, caller: Caller) -> list[Instance]:
    """Return the caller's instances, by id."""
    return await context.store.instances.list_used(caller.name)


async def list_everybodys(context: Context, caller: Caller) -> list[Instance]:
    """Return the instances of all users, by id. Raises Forbidden."""
    if caller.confined_to is not None:
        raise Forbidden("Only admins can list the instances of all users; omit `all` to list yours.")
    return await context.store.instances.list_used(None)


async def restart(context: Context, caller: Caller, instance_id: int) -> Instance:
    """Restart a running instance, or start a stopped one. The data stay.

    Raises NotFound, WrongState, NoRoom, Unavailable. If the start fails, raises its error; the reconciler continues.
    """
    instance = await reached(context, caller, instance_id)
    if instance.status not in {InstanceStatus.RUNNING, InstanceStatus.STOPPED}:
        raise WrongState(
            f"Instance {instance_id} is {instance.status}, and only a running or stopped instance can be restarted."
        )
    critical_bytes = (await disk.room(context)).critical_bytes
    if instance.status is InstanceStatus.STOPPED and await disk.shortage(context, critical_bytes):
        raise NoRoom(
            f"Instance {instance_id} was stopped because the data disk was full, and the disk is still full;"
            " destroy instances or images, or ask the operator for a larger disk."
        )
    await lifecycle.restart(context, instance_id)
    return await reached(context, caller, instance_id)


async def destroy(context: Context, caller: Caller, instance_id: int) -> None:
    """Destroy the instance. An accepted request cannot be undone. Raises NotFound, Unavailable."""
    instance = await reached(context, caller, instance_id)
    await context.store.instances.begin_destroying(instance.id)
    await lifecycle.tear_down(context, instance.id)


async def reached(context: Context, caller: Caller, instance_id: int) -> Instance:
    """Return the instance if it is visible to the caller. Raises NotFound."""
    instance = await context.store.instances.get_used(instance_id, caller.confined_to)
    if instance is None:
        raise NotFound(f"Instance {instance_id} not found; `draupnir-client instances list` lists yours.")
    return instance


def _credentials(context: Context, instance: Instance, role: str | None) -> Credentials:
    role = database_roles.allowed(role, instance.image_id, instance.superuser)
    return authorities.issue_client(context, instance, role)


async def _reserve(context: Context, caller: Caller, image_id: int, shape: Shape) -> Instance:
    """Reserve a row and a port. Take a port from the pool if no other is free."""
    while True:
        try:
            return await lifecycle.reserve(context, image_id, caller.name, Purpose.USE, shape)
        except NoFreePort:
            if not await pool.give_up_one(context):
                raise
