"""The requests about instances: a snapshot with an owner, and three units in front of it."""

from __future__ import annotations

from draupnir_helper import files, layout, manifests, postgres, storage, subvolumes, units, users, wire
from draupnir_helper.errors import HelperError
from draupnir_helper.images import require_major
from draupnir_helper.layout import Place
from draupnir_helper.settings import Settings
from draupnir_helper.wire import ErrorCode

CONFIGURATION = "/run/draupnir/instance"  # where the sandbox shows the run directory of its instance


def create_instance(request: wire.CreateInstance) -> wire.Done:
    """Snapshot the image and hand the copy to the instance's own user; one that is there already stays as it is."""
    _, uid = layout.instance_user(request.instance_id)
    with storage.root() as root:
        storage.require_room(root)
        if not subvolumes.exists(root, Place.IMAGES, request.image_id):
            raise HelperError(ErrorCode.NOT_FOUND, "The image is not on the server's disk.")
        manifests.write(root, Place.INSTANCES, request.instance_id, request)
        subvolumes.copy(root, Place.IMAGES, Place.INSTANCES, request.image_id, request.instance_id, owner=(uid, uid))
    return wire.Done()


def start_instance(request: wire.StartInstance, settings: Settings) -> wire.InstanceState:
    """Open the port and start Postgres behind it; an instance whose port listens is left alone."""
    instance_id = request.instance_id
    state = observe(instance_id)
    if state.listening:
        return state
    if not settings.min_instance_port <= request.port < settings.max_instance_port:
        detail = f"Port {request.port} is outside the range of the server's configuration."
        raise HelperError(ErrorCode.PORT_OUT_OF_RANGE, detail)
    require_major(request.postgres_major)
    with storage.root() as root:
        if not subvolumes.exists(root, Place.INSTANCES, instance_id):
            raise HelperError(ErrorCode.NOT_FOUND, "The instance is not on the server's disk.")
    _stop(instance_id)
    _write_files(request)
    _start_units(request, settings)
    state = observe(instance_id)
    if not state.listening:
        _stop(instance_id)
        raise HelperError(ErrorCode.PORT_IN_USE, f"Something else on the server has port {request.port}.")
    units.start(layout.postgres_unit(instance_id))
    return state


def destroy_instance(request: wire.DestroyInstance) -> wire.Done:
    """Close the port, end Postgres, move the subvolume to the trash."""
    instance_id = request.instance_id
    with storage.root() as root:
        _stop(instance_id, kill=True)
        users.remove(*layout.instance_user(instance_id))
        files.remove_directory(layout.instance_run_directory(instance_id))
        subvolumes.discard(root, Place.INSTANCES, instance_id)
        manifests.remove(root, Place.INSTANCES, instance_id)
    return wire.Done()


def observe(instance_id: int) -> wire.InstanceState:
    """What systemd shows of the instance's port and Postgres."""
    socket = units.find_one(layout.port_socket(instance_id))
    server = units.find_one(layout.postgres_unit(instance_id))
    return wire.InstanceState(
        instance_id=instance_id,
        listening=socket is not None and socket.active == "active",
        postgres=server.active if server else "inactive",
    )


def _write_files(request: wire.StartInstance) -> None:
    name, uid = layout.instance_user(request.instance_id)
    users.ensure(name, uid, f"Draupnir instance {request.instance_id}")
    directory = layout.instance_run_directory(request.instance_id)
    files.make_directory(directory, mode=0o750, gid=uid)
    texts = postgres.instance_files(CONFIGURATION) | {
        "authority.crt": request.authority_certificate,
        "server.crt": request.server_certificate,
        "server.key": request.server_key,
    }
    for file_name, text in texts.items():
        files.write(directory / file_name, text, mode=0o640, gid=uid)


def _start_units(request: wire.StartInstance, settings: Settings) -> None:
    instance_id = request.instance_id
    words = f"instance {instance_id} of image {request.image_id} for {request.owner} on port {request.port}"
    address = f"127.0.0.1:{request.port}" if request.loopback_only else str(request.port)
    command = postgres.command(
        request.postgres_major, f"{CONFIGURATION}/postgresql.conf", settings.shared_preload_libraries
    )
    units.start_transient(
        layout.port_socket(instance_id),
        {"Description": f"Draupnir port of {words}", "ListenStream": address},
        companions=[
            (layout.port_service(instance_id), {"Description": f"Draupnir proxy to {words}"}),
            (
                layout.postgres_unit(instance_id),
                {"Description": f"Draupnir {words}", "ExecStart": [(command[0], command, False)]},
            ),
        ],
    )


def _stop(instance_id: int, *, kill: bool = False) -> None:
    units.stop(
        layout.port_socket(instance_id),
        layout.port_service(instance_id),
        layout.postgres_unit(instance_id),
        kill=kill,
    )
