"""Starts and stops the units of an instance: its port, its Postgres, and for most instances a proxy between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from draupnir_helper import extensions, filters, layout, manifests, postgres, units, wire
from draupnir_helper.errors import HelperError
from draupnir_helper.settings import Settings
from draupnir_helper.wire import ErrorCode

PROXY = ("/usr/lib/systemd/systemd-socket-proxyd", "--connections-max=1024")
# This command waits until the gate is open; see draupnir-gate@.socket.
WAIT = ("/bin/sh", "-c", ': <"$0"; exec "$@"')
GATE = "gate"
# The directory does not exist if the kernel was booted without IPv6.
IPV6 = Path("/proc/sys/net/ipv6")
_PROMOTION_S = 120
CONFIGURATION = "/run/draupnir/instance"  # the run directory of the instance as its sandbox sees it


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


def start_proxied(
    request: wire.StartInstance, settings: Settings, facts: manifests.Facts, copy: Callable[[], None]
) -> None:
    """Open the port, with Postgres behind a proxy, and copy the data while systemd opens the port."""
    instance_id = request.instance_id
    described = words(request)
    gate = layout.instance_run_directory(instance_id) / GATE
    proxy = [*WAIT, str(gate), *PROXY, f"127.0.0.1:{postgres.PORT}"]
    if request.sleep_after_s:
        proxy.insert(-1, f"--exit-idle-time={request.sleep_after_s}s")
    units.begin_transient(
        layout.port_socket(instance_id),
        {"Description": f"Draupnir port of {described}"} | _listening(request) | _admission(request),
        companions=[
            (layout.port_service(instance_id), _service(f"Draupnir proxy to {described}", proxy)),
            (layout.postgres_unit(instance_id), _server(request, settings, facts)),
        ],
    )
    # systemd opens a port in a process that it moves to the cgroup of the socket, for which the kernel needs 10 ms.
    copy()
    units.await_job(layout.port_socket(instance_id))


def _listening(request: wire.StartInstance) -> dict[str, object]:
    """Return the listen addresses: all of the machine, or for a trial the loopback addresses of both families."""
    if not request.loopback_only:
        return {"ListenStream": str(request.port)}
    hosts = ["127.0.0.1", "[::1]"] if IPV6.exists() else ["127.0.0.1"]
    # If IPv6 is disabled, the address may not exist.
    return {"Listen": [("Stream", f"{host}:{request.port}") for host in hosts], "FreeBind": True}


def promote(request: wire.StartInstance) -> None:
    """Make the role draupnir a superuser of the data, with single-user mode in the sandbox of the instance."""
    name = layout.promotion_unit(request.instance_id)
    command = postgres.single_user_command(request.postgres_major, CONFIGURATION)
    units.begin_transient(name, _service(f"Draupnir makes a superuser in {words(request)}", command))
    units.await_job(name, timeout_s=_PROMOTION_S)
    found = units.find_one(name)
    units.stop(name)
    # A unit that was stopped before its end is not active.
    if found is None or found.active != "active":
        raise HelperError(ErrorCode.UNIT_FAILED, f"{name} failed; see journalctl --namespace=* -u {name}.")


def wake(instance_id: int, state: wire.InstanceState) -> None:
    """Start Postgres behind the proxy."""
    server = layout.postgres_unit(instance_id)
    if state.postgres != "inactive":
        # A client has connected already. If the data did not exist yet, Postgres has failed, and systemd would restart
        # it only after a delay.
        units.await_job(server)
        if observe(instance_id).postgres == "failed":
            units.begin(server, again=True)
    units.begin(layout.port_service(instance_id))


def require_both_families(request: wire.StartInstance) -> None:
    """Make systemd listen on the port briefly, which fails unless it succeeds for both IPv4 and IPv6.

    Postgres starts with only one of the two, and clients of the other family would reach a foreign program.
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
        raise port_in_use(request)


def port_in_use(request: wire.StartInstance) -> HelperError:
    """Return the error for a port on which another program listens."""
    return HelperError(ErrorCode.PORT_IN_USE, f"Another program on the server uses port {request.port}.")


def start_direct(request: wire.StartInstance, settings: Settings, facts: manifests.Facts) -> None:
    """Start a Postgres that listens on the port itself."""
    server = _server(request, settings, facts, "-c", "listen_addresses=*", "-c", f"port={request.port}")
    units.start_transient(layout.direct_unit(request.instance_id), server | _admission(request))


def _admission(request: wire.StartInstance) -> dict[str, object]:
    """Return the filter properties, none without an allowlist, because a filter costs time for every packet."""
    return {} if request.addresses is None else filters.admission(request.addresses)


def _server(
    request: wire.StartInstance, settings: Settings, facts: manifests.Facts, *options: str
) -> dict[str, object]:
    major = request.postgres_major
    # Libraries that are no longer allowed or installed must not keep the instance from starting.
    libraries = [
        name
        for name in facts.preload_libraries
        if name in settings.allowed_preload_libraries and postgres.library(major, name).exists()
    ]
    command = postgres.command(
        major,
        CONFIGURATION,
        postgres.instance_settings(CONFIGURATION),
        list(dict.fromkeys([*settings.shared_preload_libraries, *libraries])),
    )
    binds = extensions.bound(major, settings.trusted_extensions)
    return _service(f"Draupnir {words(request)}", [*command, *options]) | (
        {"BindReadOnlyPaths": binds} if binds else {}
    )


def _service(description: str, command: list[str]) -> dict[str, object]:
    return {"Description": description, "ExecStart": [(command[0], command, False)]}


def words(request: wire.StartInstance | wire.AssignInstance) -> str:
    """Return the words for the instance in the descriptions of its units."""
    return f"instance {request.instance_id} of image {request.image_id} for {request.owner} on port {request.port}"


def stop(instance_id: int, *, kill: bool = False) -> None:
    """Close the port and its connections, and stop Postgres cleanly, or with `kill` at once."""
    units.stop(
        layout.port_socket(instance_id),
        layout.port_service(instance_id),
        layout.postgres_unit(instance_id),
        layout.gate(instance_id),
        layout.direct_unit(instance_id),
        layout.promotion_unit(instance_id),
        *layout.probe(instance_id),
        kill=kill,
    )
