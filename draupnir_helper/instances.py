"""Handles the requests about instances: their snapshots, owners and units."""

from __future__ import annotations

from draupnir_helper import (
    allowances,
    ceilings,
    files,
    filters,
    instance_units,
    layout,
    manifests,
    postgres,
    storage,
    subvolumes,
    units,
    users,
    wire,
)
from draupnir_helper.errors import HelperError
from draupnir_helper.images import require_major
from draupnir_helper.instance_units import CONFIGURATION, GATE, observe
from draupnir_helper.layout import Place
from draupnir_helper.quotas import Quotas
from draupnir_helper.settings import Settings
from draupnir_helper.wire import ErrorCode


def start_instance(request: wire.StartInstance, settings: Settings) -> wire.InstanceState:
    """Copy the data of a new instance and open the port; an existing copy and a listening port stay unchanged."""
    instance_id = request.instance_id
    with storage.root() as root:
        copied = subvolumes.exists(root, Place.INSTANCES, instance_id)
        state = observe(instance_id)
        if copied and state.listening:
            return state
        if not copied:
            _require_image(root, request, settings)
        facts = manifests.read(root, instance_id) if copied else manifests.facts(root, request.image_id)
        allowances.require_allowed(root, request, settings, copied=copied)
        allowances.require_superuser(request, settings, facts)
        _require_port(request, settings)
        require_major(request.postgres_major)
        filters.require(request.addresses)
        instance_units.stop(instance_id)
        _write_files(request, _user(root, instance_id), any_role=facts.any_role)
        if request.superuser and not facts.superuser:
            facts = _promote(root, request, settings, facts)
        if request.direct:
            instance_units.require_both_families(request)
            _copy(root, request, settings, facts)
            instance_units.start_direct(request, settings, facts)
        else:
            instance_units.start_proxied(request, settings, facts, lambda: _copy(root, request, settings, facts))
    state = observe(instance_id)
    if not state.listening:
        instance_units.stop(instance_id)
        raise instance_units.port_in_use(request)
    if request.new and not request.direct:
        instance_units.wake(instance_id, state)
    return state


def assign_instance(request: wire.AssignInstance) -> wire.InstanceState:
    """Record the owner of the instance in the descriptions of its units and in its manifest."""
    words = instance_units.words(request)
    units.describe(layout.postgres_unit(request.instance_id), f"Draupnir {words}")
    units.describe(layout.port_socket(request.instance_id), f"Draupnir port of {words}")
    with storage.root() as root:
        # Keep the manifest only for an existing instance, because any id may be requested.
        if subvolumes.exists(root, Place.INSTANCES, request.instance_id):
            manifests.assign(root, request)
    return observe(request.instance_id)


def close_instance(request: wire.CloseInstance) -> wire.Done:
    """Close the port and its connections, and stop Postgres cleanly; data and manifest stay."""
    instance_units.stop(request.instance_id)
    _forget_run(request.instance_id)
    return wire.Done()


def admit_addresses(request: wire.AdmitAddresses) -> wire.InstanceState:
    """Replace the allowlist of an open port."""
    filters.require(request.addresses)
    for name in (layout.port_socket(request.instance_id), layout.direct_unit(request.instance_id)):
        if units.find_one(name) is not None:
            filters.admit(name, request.addresses)
    return observe(request.instance_id)


def limit_instance(request: wire.LimitInstance, settings: Settings) -> wire.InstanceState:
    """Set the limit, and make a running Postgres reload whether it may write."""
    instance_id = request.instance_id
    with storage.root() as root:
        if not subvolumes.exists(root, Place.INSTANCES, instance_id):
            raise HelperError(ErrorCode.NOT_FOUND, "The instance is not on the server's disk.")
        allowances.require_ceiling(root, instance_id, request.ceiling, settings)
        _, uid = _user(root, instance_id)
        Quotas(root).ensure(Place.INSTANCES, instance_id, _limit_bytes(request.ceiling))
    path = layout.instance_run_directory(instance_id) / postgres.CONFIGURATION_NAME
    if path.exists():
        text = postgres.instance_text(CONFIGURATION, request.ceiling, request.parameters)
        files.write(path, text, mode=0o640, gid=uid)
        for name in (layout.postgres_unit(instance_id), layout.direct_unit(instance_id)):
            units.reload(name)
    return observe(instance_id)


def destroy_instance(request: wire.DestroyInstance) -> wire.Done:
    """Close the port, stop Postgres, and move the subvolume to the trash."""
    instance_id = request.instance_id
    with storage.root() as root:
        instance_units.stop(instance_id, kill=True)
        _forget_run(instance_id)
        subvolumes.discard(root, Place.INSTANCES, instance_id)
        manifests.remove(root, Place.INSTANCES, instance_id)
    return wire.Done()


def _require_port(request: wire.StartInstance, settings: Settings) -> None:
    if not settings.min_instance_port <= request.port < settings.max_instance_port:
        detail = f"Port {request.port} is outside the range of the server's configuration."
        raise HelperError(ErrorCode.PORT_OUT_OF_RANGE, detail)


def _require_image(root: int, request: wire.StartInstance, settings: Settings) -> None:
    if not request.new:
        raise HelperError(ErrorCode.NOT_FOUND, "The instance is not on the server's disk.")
    storage.require_room(root, settings)
    if not subvolumes.exists(root, Place.IMAGES, request.image_id):
        raise HelperError(ErrorCode.NOT_FOUND, "The image is not on the server's disk.")


def _copy(root: int, request: wire.StartInstance, settings: Settings, facts: manifests.Facts) -> None:
    """Snapshot the image for a new instance, owned by the instance's own user; apply the ceiling."""
    if request.ceiling is None:
        _snapshot(root, request, facts, None)
        return
    quotas, limit_bytes = Quotas(root), _limit_bytes(request.ceiling)
    if request.new:
        usual_bytes = storage.max_instance_bytes(storage.size_bytes(root), settings)
        quotas.make_ahead(Place.INSTANCES, request.instance_id, ceilings.limit_bytes(usual_bytes, extended=False))
    with quotas.made(Place.INSTANCES, request.instance_id, limit_bytes) as group:
        _snapshot(root, request, facts, group)


def _snapshot(root: int, request: wire.StartInstance, facts: manifests.Facts, group: int | None) -> None:
    if request.new:
        _, uid = layout.instance_user(request.instance_id)
        manifests.write(root, Place.INSTANCES, request.instance_id, request, facts)
        subvolumes.copy(
            root, Place.IMAGES, Place.INSTANCES, request.image_id, request.instance_id, owner=(uid, uid), group=group
        )


def _promote(root: int, request: wire.StartInstance, settings: Settings, facts: manifests.Facts) -> manifests.Facts:
    """Make the role draupnir a superuser before the port opens, and record it; return the new facts.

    After an interruption this runs again, because only the record says that it is done.
    """
    _copy(root, request, settings, facts)
    instance_units.promote(request)
    facts = facts.model_copy(update={"superuser": True})
    manifests.write(root, Place.INSTANCES, request.instance_id, request, facts)
    return facts


def _limit_bytes(ceiling: wire.Ceiling) -> int:
    return ceilings.limit_bytes(ceiling.max_bytes, extended=ceiling.extended)


def _user(root: int, instance_id: int) -> tuple[str, int]:
    """Return the name and the uid of the instance, from the owner of existing data, which only root can change."""
    former = layout.former_instance_user(instance_id)
    owner = subvolumes.owner(root, Place.INSTANCES, instance_id)
    return former if owner == former[1] else layout.instance_user(instance_id)


def _write_files(request: wire.StartInstance, user: tuple[str, int], *, any_role: bool) -> None:
    name, uid = user
    users.ensure(name, uid, f"Draupnir instance {request.instance_id}")
    directory = layout.instance_run_directory(request.instance_id)
    files.make_directory(directory, mode=0o750, gid=uid)
    texts = postgres.instance_files(CONFIGURATION, request.ceiling, request.parameters, any_role=any_role) | {
        # Single-user mode looks up its user in this file.
        "passwd": f"{name}:x:{uid}:{uid}::/:/usr/sbin/nologin\n",
        "authority.crt": request.authority_certificate,
        "server.crt": request.server_certificate,
        "server.key": request.server_key,
    }
    for file_name, text in texts.items():
        files.write(directory / file_name, text, mode=0o640, gid=uid)
    # systemd opens only files of root.
    files.make_pipe(directory / GATE, mode=0o644)


def _forget_run(instance_id: int) -> None:
    users.remove(*layout.instance_user(instance_id))
    users.remove(*layout.former_instance_user(instance_id))
    files.remove_directory(layout.instance_run_directory(instance_id))
