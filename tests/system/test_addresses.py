"""Allowlists on the network: three clients with separate addresses, listed, unlisted, expired, IPv4 and IPv6."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.system.conftest import CONFIGURATION
from tests.system.service import URL, Service, run
from tests.system.test_pool import await_pool, metadata

FAMILIES = ("v4", "v6")
# Long enough for a local connection, short enough to wait for a blocked one.
PATIENCE_S = 1.5
RECONCILED_WITHIN_S = 20
KNOCK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])) as connection:
    connection.settimeout(30)
    connection.sendall(bytes.fromhex("0000000804d2162f"))
    sys.exit(connection.recv(1) != b"S")
"""


@dataclass(frozen=True)
class Client:
    """A network namespace with a veth pair to the server, and an address of each family at both ends."""

    number: int

    @property
    def name(self) -> str:
        return f"client-{self.number}"

    def address(self, family: str) -> str:
        return f"10.200.{self.number}.2" if family == "v4" else f"fd00:200:{self.number}::2"

    def server(self, family: str) -> str:
        return self.address(family)[:-1] + "1"

    def plug_in(self) -> None:
        cable = f"cable{self.number}"
        ip("netns", "add", self.name)
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        for where, device, own in (([], cable, self.server), (["-n", self.name], "eth0", self.address)):
            ip(*where, "address", "add", f"{own('v4')}/24", "dev", device)
            ip(*where, "address", "add", f"{own('v6')}/64", "dev", device, "nodad")
            ip(*where, "link", "set", device, "up")

    def unplug(self) -> None:
        run("ip", "link", "delete", f"cable{self.number}", ok=False)
        run("ip", "netns", "delete", self.name, ok=False)

    def reaches(self, port: str, family: str) -> bool:
        """Return whether Postgres answers an SSLRequest, the first message of any client."""
        knock = ["python3", "-c", KNOCK, self.server(family), port, str(PATIENCE_S)]
        return run("ip", "netns", "exec", self.name, *knock, ok=False).returncode == 0

    def psql(self, environment: dict[str, str], family: str) -> subprocess.Popen[str]:
        """Return a session that stays."""
        options = {**environment, "PGDATABASE": "my_db", "PGHOSTADDR": self.server(family), "PGCONNECT_TIMEOUT": "20"}
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, "psql", "-XAtq"],
            env=options, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip


def ip(*words: str) -> None:
    run("ip", *words)


@pytest.fixture(scope="module")
def clients() -> Iterator[list[Client]]:
    made = [Client(number) for number in (1, 2, 3)]
    try:
        for each in made:
            each.plug_in()
        yield made
    finally:
        for each in made:
            each.unplug()
        # Mounted by the first namespace.
        run("umount", "/run/netns")


@contextlib.contextmanager
def configured(**changes: str) -> Iterator[None]:
    before = CONFIGURATION.read_text()
    lines = "".join(f"{key} = {value}\n" for key, value in changes.items())
    rest = "".join(line for line in before.splitlines(keepends=True) if line.split(" ")[0] not in changes)
    CONFIGURATION.write_text(lines + rest)
    run("systemctl", "restart", "draupnir")
    try:
        yield
    finally:
        CONFIGURATION.write_text(before)
        run("systemctl", "restart", "draupnir")


@pytest.fixture(scope="module")
def _listed(service: Service, image: int) -> Iterator[None]:
    """Enable allowlists, with the server's own address as a trusted proxy."""
    with configured(enable_ip_whitelisting="true", use_x_forwarded_for="true", trusted_proxy_cidrs='["127.0.0.1/32"]'):
        yield


@dataclass
class Port:
    """An instance with an allowlist, and its port."""

    service: Service
    id: int
    number: str

    def see(self, address: str) -> None:
        """Show the instance as its owner from that address."""
        assert ask_from(self.service, address, "GET", f"/instances/{self.id}").status_code == 200

    def allow(self, address: str) -> None:
        answer = self.service.ask("POST", f"/instances/{self.id}/addresses", {"address": address})
        assert answer.status_code == 201, answer.text

    def expire(self, address: str) -> None:
        which = f"instance_id = {self.id} AND network = '{address}'"
        assert metadata(f"UPDATE addresses SET expires_at = now() WHERE {which} RETURNING 1")

    def list(self) -> set[str]:
        """Return systemd's filter."""
        units = [f"draupnir-port-{self.id}.socket", f"draupnir-instance-direct-{self.id}.service"]
        return {*run("systemctl", "show", "-P", "IPAddressAllow", *units).stdout.split()}


def ask_from(service: Service, address: str, method: str, path: str, attributes: object = None) -> httpx.Response:
    """Send a request through the trusted proxy."""
    return service.ask(method, path, attributes, headers={"X-Forwarded-For": address})  # type: ignore[arg-type]


@pytest.fixture(params=["proxied", "direct"])
def port(service: Service, image: int, _listed: None, request: pytest.FixtureRequest) -> Iterator[Port]:
    attributes = {"image_id": image, "network": request.param}
    data = ask_from(service, "203.0.113.1", "POST", "/instances", attributes).json()["data"]
    yield Port(service, data["id"], data["attributes"]["port"])
    service.destroy_instance(data["id"])


def await_so(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + RECONCILED_WITHIN_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_port_accepts_listed_addresses_until_they_expire(port: Port, clients: list[Client], family: str) -> None:
    seen, added, stranger = clients
    assert not any(each.reaches(port.number, family) for each in clients), "before anybody is on the list"
    port.see(seen.address(family))
    port.allow(added.address(family))
    assert [each.reaches(port.number, family) for each in clients] == [True, True, False]
    other = next(each for each in FAMILIES if each != family)
    assert not seen.reaches(port.number, other), "an address of the one family opens nothing for the other"
    port.expire(added.address(family))
    await_so(lambda: added.address(family) not in " ".join(port.list()))
    assert [each.reaches(port.number, family) for each in clients] == [True, False, False]
    port.see(added.address(family))
    assert added.reaches(port.number, family), "seen again"


def test_networks_are_listed_as_well(port: Port, clients: list[Client]) -> None:
    port.allow("10.200.0.0/23")
    port.allow("fd00:200:2::/48")
    assert [each.reaches(port.number, "v4") for each in clients] == [True, False, False]
    assert [each.reaches(port.number, "v6") for each in clients] == [False, True, False]


def test_an_ipv4_mapped_address_is_ipv4(port: Port, clients: list[Client]) -> None:
    port.allow(f"::ffff:{clients[0].address('v4')}")
    assert clients[0].reaches(port.number, "v4")
    port.see(f"::ffff:{clients[1].address('v4')}")
    assert clients[1].reaches(port.number, "v4")


def test_a_forged_header_opens_nothing(port: Port, clients: list[Client]) -> None:
    """Neither from an untrusted peer, nor to the left of the trusted proxy's entry."""
    forged = {"Authorization": f"Bearer {port.service.token}", "X-Forwarded-For": clients[0].address("v4")}
    with httpx.Client(base_url=URL, transport=httpx.HTTPTransport(local_address="127.0.0.2")) as peer:
        assert peer.get(f"/instances/{port.id}", headers=forged).status_code == 200
    port.see(f"{clients[0].address('v4')}, {clients[1].address('v4')}")
    assert [each.reaches(port.number, "v4") for each in clients] == [False, True, False]


def say(session: subprocess.Popen[str], sql: str, within_s: float) -> str | None:
    """Return the next line of the answer, if there is one."""
    assert session.stdin is not None
    assert session.stdout is not None
    session.stdin.write(f"{sql};\n")
    ready, _, _ = select.select([session.stdout], [], [], within_s)
    return session.stdout.readline().strip() if ready else None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_change_leaves_the_connections_of_those_on_the_list_and_cuts_the_others(
    port: Port, clients: list[Client], family: str
) -> None:
    stays, goes, _ = clients
    for each in (stays, goes):
        port.see(each.address(family))
    environment = dict(port.service.environment(port.id))
    with stays.psql(environment, family) as one, goes.psql(environment, family) as other:
        try:
            assert say(one, "SELECT 1", 30) == say(other, "SELECT 1", 30) == "1"
            address = goes.address(family)
            assert port.service.ask("DELETE", f"/instances/{port.id}/addresses?address={address}").status_code == 204
            for number in range(3):
                port.allow(f"203.0.113.{number}")
                assert say(one, f"SELECT {number}", 10) == str(number)
            assert say(other, "SELECT 2", PATIENCE_S) is None
        finally:
            one.kill()
            other.kill()


@pytest.mark.parametrize(
    "event",
    [
        ["systemctl", "restart", "draupnir"],
        ["systemctl", "restart", "draupnir-helper"],
        ["systemctl", "daemon-reload"],
        ["systemctl", "daemon-reexec"],
    ],
    ids=lambda command: " ".join(command[1:]),
)
def test_the_allowlist_survives(port: Port, clients: list[Client], event: list[str]) -> None:
    port.see(clients[0].address("v4"))
    port.allow(clients[1].address("v6"))
    before = port.list()
    run(*event)
    await_so(lambda: port.service.ask("GET", f"/instances/{port.id}").status_code == 200)
    assert port.list() == before
    assert [each.reaches(port.number, "v4") for each in clients] == [True, False, False]
    assert [each.reaches(port.number, "v6") for each in clients] == [False, True, False]


@pytest.mark.parametrize("value", ["0.0.0.0/0 ::/0", "", "203.0.113.0/24"])
def test_a_manual_change_of_the_filter_is_corrected(port: Port, clients: list[Client], value: str) -> None:
    port.see(clients[0].address("v4"))
    before = port.list()
    for unit in (f"draupnir-port-{port.id}.socket", f"draupnir-instance-direct-{port.id}.service"):
        run("systemctl", "set-property", "--runtime", unit, "IPAddressAllow=", f"IPAddressAllow={value}", ok=False)
    assert port.list() != before
    await_so(lambda: port.list() == before)
    assert [each.reaches(port.number, "v4") for each in clients] == [True, False, False]


@pytest.mark.usefixtures("_listed")
def test_a_pooled_port_accepts_no_address_and_a_claimed_one_its_owner_at_once(
    service: Service, image: int, clients: list[Client]
) -> None:
    with configured(pool_size="1"):
        await_pool(1)
        (number,) = metadata("SELECT port FROM instances WHERE purpose = 'pool'")
        assert not any(each.reaches(number, family) for each in clients for family in FAMILIES)
        data = ask_from(service, clients[0].address("v4"), "POST", "/instances", {"image_id": image}).json()["data"]
        assert data["attributes"]["port"] == number
        assert [each.reaches(number, "v4") for each in clients] == [True, False, False]
        await_pool(1)
    await_pool(0)
    service.destroy_instance(data["id"])


def test_people_manage_their_list_with_the_client(port: Port, clients: list[Client]) -> None:
    port.service.client("instances", "allow", str(port.id), clients[0].address("v4"), "--for", "8h")
    assert f"{clients[0].address('v4')} until" in port.service.client("instances", "show", str(port.id)).stdout
    assert clients[0].reaches(port.number, "v4")
    port.service.client("instances", "disallow", str(port.id), clients[0].address("v4"))
    assert not clients[0].reaches(port.number, "v4")


@pytest.mark.usefixtures("_listed")
def test_without_allowlists_a_port_is_open_and_has_no_filter(
    service: Service, image: int, clients: list[Client]
) -> None:
    data = service.create_instance(image)
    number, unit = data["attributes"]["port"], f"draupnir-port-{data['id']}.socket"
    assert not clients[0].reaches(number, "v4")
    with configured(enable_ip_whitelisting="false"):
        await_so(lambda: clients[0].reaches(number, "v4"))
        assert run("systemctl", "show", "-P", "IPAddressDeny", unit).stdout.strip() == ""
        answer = service.ask("POST", f"/instances/{data['id']}/addresses", {"address": "203.0.113.1"})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "allow_lists_off")
    await_so(lambda: not clients[0].reaches(number, "v4"))
    service.destroy_instance(data["id"])


@pytest.mark.usefixtures("_listed")
def test_where_systemd_cannot_filter_the_service_does_not_start_and_doctor_says_why(
    service: Service, image: int, tmp_path: Path
) -> None:
    """systemd detects its support again after daemon-reexec; here the kernel makes it detect none."""
    log = tmp_path / "strace.log"
    inject = ["-e", "trace=bpf", "-e", "inject=bpf:error=EPERM"]
    with subprocess.Popen(["strace", "-f", "-qq", "-o", str(log), *inject, "-p", "1"]) as tracer:
        try:
            await_so(lambda: "TracerPid:\t0" not in Path("/proc/1/status").read_text())
            run("systemctl", "daemon-reexec")
            run("systemctl", "restart", "draupnir-helper")
            run("systemctl", "restart", "draupnir", ok=False)
            shown = "Result,ExecMainStatus"
            await_so(lambda: "=78" in run("systemctl", "show", "-p", shown, "draupnir").stdout)
            found = run("draupnir", "doctor", ok=False)
            assert found.returncode == 1
            assert "enable_ip_whitelisting is on, but systemd cannot filter addresses on this machine" in found.stdout
        finally:
            os.kill(tracer.pid, 15)
    run("systemctl", "daemon-reexec")
    run("systemctl", "restart", "draupnir-helper")
    run("systemctl", "reset-failed", "draupnir", ok=False)
    run("systemctl", "restart", "draupnir")
    await_so(lambda: service.ask("GET", "/health_check").status_code == 200)
    assert "ports accept only the addresses on their allowlists" in run("draupnir", "doctor", ok=False).stdout
