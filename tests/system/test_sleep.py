"""An instance sleeps without connections, and the next connection wakes it; direct ones never sleep."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench import helper
from tests.system.faults import DAEMON, HELPER, await_healthy, await_that, kill, main_pid
from tests.system.service import Service, run


def made(service: Service, image: int, **attributes: Any) -> int:
    answer = service.ask("POST", "/instances", {"image_id": image, **attributes})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["data"]["id"])


def status(service: Service, instance_id: int) -> str:
    return str(service.ask("GET", f"/instances/{instance_id}").json()["data"]["attributes"]["status"])


def await_status(service: Service, instance_id: int, wanted: str, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while (found := status(service, instance_id)) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@pytest.fixture
def sleeper(service: Service, image: int) -> Iterator[int]:
    """Provide an instance with an idle timeout of a second."""
    instance_id = made(service, image, sleep_after=1)
    yield instance_id
    service.ask("DELETE", f"/instances/{instance_id}")


def test_an_instance_falls_asleep_keeps_its_data_and_wakes_on_the_next_connection(
    service: Service, sleeper: int
) -> None:
    service.psql(sleeper, "CREATE TABLE kept AS SELECT 42 AS x")
    await_status(service, sleeper, "asleep")
    group = run("systemctl", "show", "-P", "MainPID", f"draupnir-instance-{sleeper}").stdout.strip()
    assert group == "0", "nothing of it runs"
    assert service.answer(sleeper, "SELECT x FROM kept") == "42"
    assert status(service, sleeper) == "running"
    await_status(service, sleeper, "asleep")


def test_wake_ups_have_no_rate_limit(service: Service, sleeper: int) -> None:
    # systemd's default limit is five starts in ten seconds.
    for _ in range(8):
        await_status(service, sleeper, "asleep")
        assert service.answer(sleeper, "SELECT count(*) FROM users") == "5000"


def test_a_connection_keeps_an_instance_awake(service: Service, sleeper: int) -> None:
    environment = {**service.environment(sleeper), "PGDATABASE": "my_db"}
    with subprocess.Popen(
        ["psql", "-XAtq", "-c", "SELECT pg_sleep(4)", "-c", "SELECT 'awake'"],
        env=environment, stdout=subprocess.PIPE, text=True,
    ) as client:  # fmt: skip
        assert client.communicate(timeout=300)[0].split() == ["awake"]


def test_an_instance_sleeps_and_wakes_without_the_daemon_and_the_helper(service: Service, sleeper: int) -> None:
    environment = {**service.environment(sleeper), "PGDATABASE": "my_db", "PGCONNECT_TIMEOUT": "20"}
    await_status(service, sleeper, "asleep")
    run("systemctl", "stop", "draupnir.socket", "draupnir", "draupnir-helper.socket", "draupnir-helper")
    try:
        done = run("psql", "-XAtqc", "SELECT count(*) FROM users", env=environment)
    finally:
        run("systemctl", "start", "draupnir-helper.socket", "draupnir.socket", "draupnir")
    assert done.stdout.strip() == "5000"


@pytest.mark.parametrize("unit", [DAEMON, HELPER])
def test_an_instance_wakes_and_falls_asleep_while_the_service_is_killed(
    service: Service, sleeper: int, unit: str
) -> None:
    service.psql(sleeper, "CREATE TABLE kept AS SELECT 42 AS x")
    environment = {**service.environment(sleeper), "PGDATABASE": "my_db", "PGCONNECT_TIMEOUT": "20"}
    await_status(service, sleeper, "asleep")
    with subprocess.Popen(
        ["psql", "-XAtqc", "SELECT x FROM kept"], env=environment, stdout=subprocess.PIPE, text=True
    ) as client:
        kill(unit)
        assert client.communicate(timeout=300)[0].split() == ["42"]
    proxy = f"draupnir-port-{sleeper}.service"
    await_that(lambda: run("systemctl", "is-active", proxy, ok=False).returncode != 0, "the proxy ends, being idle")
    kill(unit)
    await_healthy(service)
    await_status(service, sleeper, "asleep")
    assert service.answer(sleeper, "SELECT x FROM kept") == "42"


def test_a_proxy_that_is_killed_while_it_waits_for_postgres_leaves_the_port_to_the_next(
    service: Service, sleeper: int
) -> None:
    await_status(service, sleeper, "asleep")
    proxy = f"draupnir-port-{sleeper}.service"
    environment = {**service.environment(sleeper), "PGDATABASE": "my_db", "PGCONNECT_TIMEOUT": "20"}
    with subprocess.Popen(["psql", "-XAtqc", "SELECT 1"], env=environment, stderr=subprocess.PIPE) as client:
        await_that(lambda: main_pid(proxy) != 0, "it waits")
        run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", proxy, ok=False)
        client.communicate(timeout=300)
    assert service.answer(sleeper, "SELECT count(*) FROM users") == "5000"


def test_an_instance_destroyed_while_it_wakes_is_gone(service: Service, image: int) -> None:
    instance_id = made(service, image, sleep_after=1)
    environment = {**service.environment(instance_id), "PGDATABASE": "my_db", "PGCONNECT_TIMEOUT": "20"}
    await_status(service, instance_id, "asleep")
    with subprocess.Popen(["psql", "-XAtqc", "SELECT pg_sleep(60)"], env=environment, stderr=subprocess.PIPE) as client:
        port = f"draupnir-port-{instance_id}.service"
        await_that(lambda: run("systemctl", "show", "-P", "ActiveState", port).stdout.strip() != "inactive", "it wakes")
        service.destroy_instance(instance_id)
        client.communicate(timeout=300)
        assert client.returncode != 0
    assert service.ask("GET", f"/instances/{instance_id}").status_code == 404


def test_an_instance_closed_while_it_wakes_stops_at_once_and_recovers(service: Service, sleeper: int) -> None:
    service.psql(sleeper, "CREATE TABLE kept AS SELECT 42 AS x")
    await_status(service, sleeper, "asleep")
    environment = {**service.environment(sleeper), "PGDATABASE": "my_db", "PGCONNECT_TIMEOUT": "20"}
    unit = f"draupnir-instance-{sleeper}.service"
    with subprocess.Popen(["psql", "-XAtqc", "SELECT 1"], env=environment, stderr=subprocess.PIPE) as client:
        await_that(
            lambda: run("systemctl", "show", "-P", "ActiveState", unit).stdout.strip() == "activating", "it wakes"
        )
        helper.ask("close_instance", instance_id=sleeper)
        client.communicate(timeout=300)
    assert "timed out" not in run("journalctl", "--namespace=*", "-u", unit, "-o", "cat").stdout
    # The reconciler opens an instance that should run.
    await_that(lambda: service.psql(sleeper, "SELECT 1", ok=False).returncode == 0, "it is back")
    assert service.answer(sleeper, "SELECT x FROM kept") == "42"


def test_systemd_accepts_the_longest_sleep_after(service: Service, image: int) -> None:
    instance_id = made(service, image, sleep_after=2592000)
    assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
    assert status(service, instance_id) == "running"
    service.destroy_instance(instance_id)


def port_of(service: Service, instance_id: int) -> int:
    return int(service.ask("GET", f"/instances/{instance_id}").json()["data"]["attributes"]["port"])


def test_three_hundred_silent_connections_wake_nothing_and_lock_nobody_out(service: Service, sleeper: int) -> None:
    await_status(service, sleeper, "asleep")
    port = port_of(service, sleeper)
    with contextlib.ExitStack() as silent:
        for _ in range(300):
            silent.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        # Passed connections show there; the kernel holds these back.
        assert run("ss", "-Htn", "state", "established", f"( sport = :{port} )").stdout == ""
        assert status(service, sleeper) == "asleep"
        assert service.answer(sleeper, "SELECT count(*) FROM users") == "5000"
        await_status(service, sleeper, "asleep")


def test_a_silent_client_does_not_prevent_sleep(service: Service, sleeper: int) -> None:
    await_status(service, sleeper, "asleep")
    with socket.create_connection(("127.0.0.1", port_of(service, sleeper)), timeout=10) as silent:
        silent.sendall(b"\0")
        await_status(service, sleeper, "running")
        # Postgres disconnects after authentication_timeout.
        silent.settimeout(90)
        assert silent.recv(1) == b""
    await_status(service, sleeper, "asleep")


def test_two_hundred_clients_of_one_sleeper_wake_it_once(service: Service, sleeper: int) -> None:
    environment = {**service.environment(sleeper), "PGDATABASE": "my_db", "PGCONNECT_TIMEOUT": "60"}
    await_status(service, sleeper, "asleep")
    everybody = threading.Barrier(200)

    def connect(_: int) -> str:
        everybody.wait(timeout=300)
        done = run("psql", "-XAtqc", "SELECT 'answered' FROM pg_sleep(1)", env=environment, ok=False)
        return done.stdout.strip() or done.stderr

    with concurrent.futures.ThreadPoolExecutor(200) as threads:
        answers = list(threads.map(connect, range(200)))
    refused = [answer for answer in answers if answer != "answered"]
    assert all("too many clients" in each or "remaining connection slots" in each for each in refused), refused
    assert service.answer(sleeper, "SELECT 1") == "1"
    restarts = run("systemctl", "show", "-P", "NRestarts", f"draupnir-instance-{sleeper}").stdout.strip()
    assert restarts == "0"


def test_a_failed_wake_is_reported_at_once_and_shows(service: Service, sleeper: int) -> None:
    environment = {**service.environment(sleeper), "PGDATABASE": "my_db", "PGCONNECT_TIMEOUT": "60"}
    await_status(service, sleeper, "asleep")
    version = Path(f"/srv/draupnir/instances/{sleeper}/PG_VERSION")
    before = version.read_text()
    version.write_text("9.6\n")
    began = time.monotonic()
    done = run("psql", "-XAtqc", "SELECT 1", env=environment, ok=False)
    assert done.returncode != 0
    assert "server closed the connection unexpectedly" in done.stderr
    assert time.monotonic() - began < 15
    # systemd retries every half second, and the status is starting during a retry.
    await_status(service, sleeper, "failed")
    journal = run("journalctl", "--namespace=*", "-u", f"draupnir-instance-{sleeper}", "-o", "cat").stdout
    assert "not compatible with this version" in journal
    version.write_text(before)
    deadline = time.monotonic() + 60
    while service.psql(sleeper, "SELECT 1", ok=False).returncode != 0:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_an_instance_with_sleep_after_0_never_sleeps(service: Service, image: int) -> None:
    instance_id = made(service, image, sleep_after=0)
    assert "--exit-idle-time" not in run("systemctl", "cat", f"draupnir-port-{instance_id}.service").stdout
    service.destroy_instance(instance_id)


def test_a_direct_postgres_listens_itself_in_the_same_sandbox(service: Service, image: int) -> None:
    instance_id = made(service, image, network="direct")
    assert service.answer(instance_id, "SELECT inet_client_addr() IS NOT NULL, count(*) FROM users") == "t|5000"
    assert service.psql(instance_id, "SELECT 1", ok=False, PGSSLMODE="disable").returncode != 0
    shown = run("systemctl", "show", f"draupnir-instance-direct-{instance_id}").stdout.splitlines()
    for line in (
        "PrivateNetwork=no",
        "PrivateUsers=yes",
        "RootDirectory=/run/draupnir/root",
        "NoNewPrivileges=yes",
        "PrivatePIDs=yes",
    ):
        assert line in shown
    assert f"Description=Draupnir instance {instance_id} of image {image} for upload on port" in "\n".join(shown)
    assert status(service, instance_id) == "running"
    service.destroy_instance(instance_id)
