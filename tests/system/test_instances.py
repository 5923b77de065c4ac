"""An instance is private and writable, its only role logs in over TLS, and destroying it removes everything."""

from __future__ import annotations

import concurrent.futures
import socket
import ssl
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system.service import Service, run
from tests.system.test_pool import configured


def test_instances_do_not_see_writes_of_others(service: Service, image: int) -> None:
    first, second = (int(service.create_instance(image)["id"]) for _ in range(2))
    service.psql(first, "DELETE FROM users; CREATE TABLE mine ()")
    assert service.answer(first, "SELECT count(*) FROM users") == "0"
    assert service.answer(second, "SELECT count(*) FROM users") == "5000"
    third = int(service.create_instance(image)["id"])
    assert service.answer(third, "SELECT count(*) FROM users") == "5000", "the image did not change"
    for instance_id in (first, second, third):
        service.destroy_instance(instance_id)


def test_an_instance_is_connectable_after_earlier_connection_attempts(service: Service, image: int) -> None:
    """Its port opens before its data are copied, and a client may connect in between."""
    over = threading.Event()

    def knock() -> None:
        while not over.is_set():
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", 7400), timeout=1).close()

    with configured("pool_size = 0\nmin_instance_port = 7400\nmax_instance_port = 7401"):
        for _ in range(10):
            over.clear()
            knocking = threading.Thread(target=knock)
            knocking.start()
            try:
                instance_id = int(service.create_instance(image)["id"])
            finally:
                over.set()
                knocking.join()
            assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
            service.destroy_instance(instance_id)


@pytest.mark.parametrize(
    "environment",
    [
        {"PGSSLMODE": "disable"},
        {"PGSSLCERT": "/nonexistent", "PGSSLKEY": "/nonexistent"},
        {"PGUSER": "postgres"},
        {"PGUSER": "app"},
        {"PGSSLROOTCERT": "/etc/ssl/certs/ca-certificates.crt"},
    ],
    ids=["plain", "no certificate", "superuser", "another role", "another authority"],
)
def test_only_the_role_with_its_certificate_can_log_in(
    service: Service, instance: int, environment: dict[str, str]
) -> None:
    assert service.psql(instance, "SELECT 1", ok=False, **environment).returncode != 0
    assert service.answer(instance, "SELECT current_user, current_setting('is_superuser')") == "draupnir|off"


def test_one_instance_s_credentials_do_not_open_another(service: Service, image: int, instance: int) -> None:
    other = int(service.create_instance(image)["id"])
    foreign = {name: service.environment(other)[name] for name in ("PGSSLCERT", "PGSSLKEY")}
    assert service.psql(instance, "SELECT 1", ok=False, **foreign).returncode != 0
    service.destroy_instance(other)


def test_the_connection_is_verified_to_the_name(service: Service, instance: int) -> None:
    assert service.environment(instance)["PGSSLMODE"] == "verify-full"
    assert service.answer(instance, "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").startswith("TLSv1.")


def test_keys_on_the_client_are_private(service: Service, instance: int) -> None:
    key = Path(service.environment(instance)["PGSSLKEY"])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_the_operator_sees_the_owner_of_an_instance(service: Service, image: int, instance: int) -> None:
    port = service.ask("GET", f"/instances/{instance}").json()["data"]["attributes"]["port"]
    service.answer(instance, "SELECT 1")
    shown = run("systemctl", "status", f"draupnir-instance-{instance}").stdout
    assert f"instance {instance} of image {image} for upload on port {port}" in shown
    assert (
        "ready to accept connections"
        in run("journalctl", "--namespace=draupnir", "-u", f"draupnir-instance-{instance}").stdout
    )


def test_created_means_connectable(service: Service, image: int) -> None:
    data = service.create_instance(image)
    with socket.create_connection(("127.0.0.1", int(data["attributes"]["port"])), timeout=5) as connection:
        connection.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))  # SSLRequest
        connection.settimeout(30)
        assert connection.recv(1) == b"S"
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.wrap_socket(connection).close()
    service.destroy_instance(data["id"])


def test_an_instance_listens_on_both_families(service: Service, instance: int) -> None:
    attributes = service.ask("GET", f"/instances/{instance}").json()["data"]["attributes"]
    for address in ("127.0.0.1", "::1"):
        socket.create_connection((address, int(attributes["port"])), timeout=5).close()


def test_twenty_concurrent_instances_have_twenty_ports(service: Service, image: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        created = list(pool.map(lambda _: service.create_instance(image), range(20)))
        assert len({data["attributes"]["port"] for data in created}) == 20
        answers = list(pool.map(lambda data: service.answer(data["id"], "SELECT count(*) FROM users"), created))
        assert answers == ["5000"] * 20
        list(pool.map(lambda data: service.destroy_instance(data["id"]), created))


def test_destroying_closes_the_port_and_twice_is_404(service: Service, image: int) -> None:
    data = service.create_instance(image)
    service.answer(data["id"], "SELECT 1")
    service.destroy_instance(data["id"])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(data["attributes"]["port"])), timeout=5)
    assert service.ask("DELETE", f"/instances/{data['id']}").status_code == 404
    assert service.ask("GET", f"/instances/{data['id']}").status_code == 404


def test_an_image_with_instances_is_destroyed_only_with_cascade(service: Service, backup: Path) -> None:
    image_id = service.make_image(backup)
    instance_id = int(service.create_instance(image_id)["id"])
    answer = service.ask("DELETE", f"/images/{image_id}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "image_has_instances"
    assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
    service.destroy_image(image_id)
    assert service.ask("GET", f"/instances/{instance_id}").status_code == 404
    assert service.ask("GET", f"/images/{image_id}").status_code == 404


@pytest.mark.parametrize(
    "path", ["/images/0", "/images/-1", "/images/x", "/images/1.0", "/images/99999999999999", "/images/%2e%2e"]
)
def test_a_missing_resource_is_404(service: Service, path: str) -> None:
    for method in ("GET", "DELETE"):
        assert service.ask(method, path).status_code == 404, (method, path)
    assert service.ask("POST", f"{path}/done").status_code == 404
    assert service.ask("GET", path.replace("images", "instances")).status_code == 404
