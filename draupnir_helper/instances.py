"""Handles the requests about instances: their snapshots, owners and units."""

from __future__ import annotations

from pathlib import Path

from draupnir_helper import (
    allowances,
    ceilings,
    extensions,
    files,
    filters,
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
from draupnir_helper.layout import Place
from draupnir_helper.quotas import Quotas
from draupnir_helper.settings import Settings
from draupnir_helper.wire import ErrorCode

PROXY = ("/usr/lib/systemd/systemd-socket-proxyd", "--connections-max=1024")
# This command waits until the gate is open; see draupnir-gate@.socket.
WAIT = ("/bin/sh", "-c", ': <"$0"; exec "$@"')
GATE = "gate"
# The directory does not exist if the kernel was booted without IPv6.
IPV6 = Path("/proc/sys/net/ipv6")
CONFIGURATION = "/run/draupnir/instance"  # the run directory of the instance as its sandbox sees it


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
        allowances.require_allowed(root, request, settings, copied=copied)
        _require_port(request, settings)
        require_major(request.postgres_major)
        _require_filter(request.addresses)
        _stop(instance_id)
        any_role = manifests.read(root, instance_id).any_role if copied else _any_role(root, request)
        _write_files(request, _user(root, instance_id), any_role=any_role)
        if request.direct:
            _require_both_families(request)
            _copy(root, request, settings)
            _start_direct(request, settings)
        else:
            _start_proxied(root, request, settings)
    state = observe(instance_id)
    if not state.listening:
        _stop(instance_id)
        raise _port_in_use(request)
    if request.new and not request.direct:
        _wake(instance_id, state)
    return state


def assign_instance(request: wire.AssignInstance) -> wire.InstanceState:
    """Record the owner of the instance in the descriptions of its units and in its manifest."""
    words = _words(request)
    units.describe(layout.postgres_unit(request.instance_id), f"Draupnir {words}")
    units.describe(layout.port_socket(request.instance_id), f"Draupnir port of {words}")
    with storage.root() as root:
        # Keep the manifest only for an existing instance, because any id may be requested.
        if subvolumes.exists(root, Place.INSTANCES, request.instance_id):
            manifests.assign(root, request)
    return observe(request.instance_id)


def close_instance(request: wire.CloseInstance) -> wire.Done:
    """Close the port and its connections, and stop Postgres cleanly; data and manifest stay."""
    _stop(request.instance_id)
    _forget_run(request.instance_id)
    return wire.Done()


def admit_addresses(request: wire.AdmitAddresses) -> wire.InstanceState:
    """Replace the allowlist of an open port."""
    _require_filter(request.addresses)
    for name in (layout.port_socket(request.instance_id), layout.direct_unit(request.instance_id)):
        if units.find_one(name) is not None:
            filters.admit(name, _admitted(request.addresses))
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
        _stop(instance_id, kill=True)
        _forget_run(instance_id)
        subvolumes.discard(root, Place.INSTANCES, instance_id)
        manifests.remove(root, Place.INSTANCES, instance_id)
    return wire.Done()


def observe(instance_id: int) -> wire.InstanceState:
    """Return the state of the instance's port and Postgres from systemd."""
    names = [layout.port_socket(instance_id), layout.postgres_unit(instance_id), layout.direct_unit(instance_id)]
    active = {unit.name: units.condition(unit) for unit in units.find(*names)}
    socket, server, direct = (active.get(name, "inactive") for name in names)
    return wire.InstanceState(
        instance_id=instance_id,
        listening="active" in {socket, direct},
        postgres=server if direct == "inactive" else direct,
    )


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


def _copy(root: int, request: wire.StartInstance, settings: Settings) -> None:
    """Snapshot the image for a new instance, owned by the instance's own user; apply the ceiling."""
    if request.ceiling is None:
        _snapshot(root, request, None)
        return
    quotas, limit_bytes = Quotas(root), _limit_bytes(request.ceiling)
    if request.new:
        usual_bytes = storage.max_instance_bytes(storage.size_bytes(root), settings)
        quotas.make_ahead(Place.INSTANCES, request.instance_id, ceilings.limit_bytes(usual_bytes, extended=False))
    with quotas.made(Place.INSTANCES, request.instance_id, limit_bytes) as group:
        _snapshot(root, request, group)


def _snapshot(root: int, request: wire.StartInstance, group: int | None) -> None:
    if request.new:
        _, uid = layout.instance_user(request.instance_id)
        manifests.write(root, Place.INSTANCES, request.instance_id, request, any_role=_any_role(root, request))
        subvolumes.copy(
            root, Place.IMAGES, Place.INSTANCES, request.image_id, request.instance_id, owner=(uid, uid), group=group
        )


def _limit_bytes(ceiling: wire.Ceiling) -> int:
    return ceilings.limit_bytes(ceiling.max_bytes, extended=ceiling.extended)


def _user(root: int, instance_id: int) -> tuple[str, int]:
    """Return the name and the uid of the instance, from the owner of existing data, which only root can change."""
    former = layout.former_instance_user(instance_id)
    owner = subvolumes.owner(root, Place.INSTANCES, instance_id)
    return former if owner == former[1] else layout.instance_user(instance_id)


def _any_role(root: int, request: wire.StartInstance) -> bool:
    return manifests.admits_any_role(root, request.image_id)


def _write_files(request: wire.StartInstance, user: tuple[str, int], *, any_role: bool) -> None:
    name, uid = user
    users.ensure(name, uid, f"Draupnir instance {request.instance_id}")
    directory = layout.instance_run_directory(request.instance_id)
    files.make_directory(directory, mode=0o750, gid=uid)
    texts = postgres.instance_files(CONFIGURATION, request.ceiling, request.parameters, any_role=any_role) | {
        "authority.crt": request.authority_certificate,
        "server.crt": request.server_certificate,
        "server.key": request.server_key,
    }
    for file_name, text in texts.items():
        files.write(directory / file_name, text, mode=0o640, gid=uid)
    # systemd opens only files of root.
    files.make_pipe(directory / GATE, mode=0o644)


def _start_proxied(root: int, request: wire.StartInstance, settings: Settings) -> None:
    instance_id = request.instance_id
    words = _words(request)
    gate = layout.instance_run_directory(instance_id) / GATE
    proxy = [*WAIT, str(gate), *PROXY, f"127.0.0.1:{postgres.PORT}"]
    if request.sleep_after_s:
        proxy.insert(-1, f"--exit-idle-time={request.sleep_after_s}s")
    units.begin_transient(
        layout.port_socket(instance_id),
        {"Description": f"Draupnir port of {words}"} | _listening(request) | _admission(request),
        companions=[
            (layout.port_service(instance_id), _service(f"Draupnir proxy to {words}", proxy)),
            (layout.postgres_unit(instance_id), _server(request, settings)),
        ],
    )
    # systemd opens a port in a process that it moves to the cgroup of the socket. The kernel needs 10 ms for that, in
    # which the data are copied.
    _copy(root, request, settings)
    units.await_job(layout.port_socket(instance_id))


def _listening(request: wire.StartInstance) -> dict[str, object]:
    """Return the listen addresses: all of the machine, or for a trial the loopback addresses of both families."""
    if not request.loopback_only:
        return {"ListenStream": str(request.port)}
    hosts = ["127.0.0.1", "[::1]"] if IPV6.exists() else ["127.0.0.1"]
    # If IPv6 is disabled, the address may not exist.
    return {"Listen": [("Stream", f"{host}:{request.port}") for host in hosts], "FreeBind": True}


def _wake(instance_id: int, state: wire.InstanceState) -> None:
    server = layout.postgres_unit(instance_id)
    if state.postgres != "inactive":
        # A client has connected already. If the data did not exist yet, Postgres has failed, and systemd would restart
        # it only after a delay.
        units.await_job(server)
        if observe(instance_id).postgres == "failed":
            units.begin(server, again=True)
    units.begin(layout.port_service(instance_id))


def _require_both_families(request: wire.StartInstance) -> None:
    """Make systemd listen on the port briefly, which fails unless it succeeds for both IPv4 and IPv6.

    Postgres starts with either one, and clients of the other would reach a foreign program.
    """
    # The probe has a separate name: if the helper is killed here, the socket stays, and must not look like the port.
    probe, service = layout.probe(request.instance_id)
    units.begin_transient(
        probe, {"ListenStream": str(request.port)}, companions=[(service, _service(service, ["/bin/false"]))]
    )
    units.await_job(probe)
    found = units.find_one(probe)
    units.stop(probe, service)
    if found is None or found.active != "active":
        raise _port_in_use(request)


def _port_in_use(request: wire.StartInstance) -> HelperError:
    return HelperError(ErrorCode.PORT_IN_USE, f"Another program on the server uses port {request.port}.")


def _start_direct(request: wire.StartInstance, settings: Settings) -> None:
    server = _server(request, settings, "-c", "listen_addresses=*", "-c", f"port={request.port}")
    units.start_transient(layout.direct_unit(request.instance_id), server | _admission(request))


def _admission(request: wire.StartInstance) -> dict[str, object]:
    """Return the filter properties, none without an allowlist, because a filter costs time for every packet."""
    return {} if request.addresses is None else filters.admission(_admitted(request.addresses))


def _require_filter(addresses: list[filters.Network] | None) -> None:
    """Raise HelperError if systemd cannot filter, because it would open the port to everybody without an error."""
    if addresses is not None and not filters.filters_addresses():
        detail = "systemd cannot filter addresses here; it needs cgroup2 and a kernel that lets it load BPF programs."
        raise HelperError(ErrorCode.UNIT_FAILED, detail)


def _admitted(addresses: list[filters.Network] | None) -> list[filters.Network] | None:
    return None if addresses is None else [*wire.LOOPBACK, *addresses]


def _command(request: wire.StartInstance, settings: Settings) -> list[str]:
    return postgres.command(
        request.postgres_major,
        CONFIGURATION,
        postgres.instance_settings(CONFIGURATION),
        settings.shared_preload_libraries,
    )


def _server(request: wire.StartInstance, settings: Settings, *options: str) -> dict[str, object]:
    binds = extensions.bound(request.postgres_major, settings.trusted_extensions)
    return _service(f"Draupnir {_words(request)}", [*_command(request, settings), *options]) | (
        {"BindReadOnlyPaths": binds} if binds else {}
    )


def _service(description: str, command: list[str]) -> dict[str, object]:
    return {"Description": description, "ExecStart": [(command[0], command, False)]}


def _words(request: wire.StartInstance | wire.AssignInstance) -> str:
    return f"instance {request.instance_id} of image {request.image_id} for {request.owner} on port {request.port}"


def _forget_run(instance_id: int) -> None:
    users.remove(*layout.instance_user(instance_id))
    users.remove(*layout.former_instance_user(instance_id))
    files.remove_directory(layout.instance_run_directory(instance_id))


def _stop(instance_id: int, *, kill: bool = False) -> None:
    units.stop(
        layout.port_socket(instance_id),
        layout.port_service(instance_id),
        layout.postgres_unit(instance_id),
        layout.gate(instance_id),
        layout.direct_unit(instance_id),
        *layout.probe(instance_id),
        kill=kill,
    )
