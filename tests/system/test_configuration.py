"""A bad configuration is refused with its file and line; doctor reports problems with advice."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.system import world
from tests.system.faults import DAEMON, HELPER, METADATA, await_healthy, await_that
from tests.system.service import SECRET, URL, Service, run

CONFIGURATION = Path("/etc/draupnir/config.toml")
SSHD = Path("/etc/ssh/sshd_config.d/draupnir.conf")
ALL = ("draupnir-setup.service", METADATA, "draupnir-helper.socket", HELPER, "draupnir.socket", DAEMON)


@pytest.fixture(autouse=True)
def _as_it_was(service: Service) -> Iterator[None]:
    """Restore configuration and units after the test, and wait until the service is healthy."""
    kept = {path: path.read_bytes() for path in (CONFIGURATION, SSHD, SECRET)}
    yield
    for path, content in kept.items():
        path.write_bytes(content)
    SECRET.chmod(0o640)
    run("chown", "root:draupnir", SECRET)
    run("systemctl", "reload", "ssh")
    run("systemctl", "start", *ALL[:-1])
    await_that(lambda: run("systemctl", "restart", DAEMON, ok=False).returncode == 0, "the daemon starts")
    await_healthy(service)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("# a comment\n\nmin_instance_prt = 7000\n", 3, "min_instance_prt is an unknown key"),
        ('min_instance_port = "7000"\n', 1, "min_instance_port"),
        ("data_path = 5\n", 1, "data_path"),
        ("min_instance_port = 80\n", 1, "min_instance_port"),
        ("\nmin_instance_port = 8000\nmax_instance_port = 7000\n", 3, "min_instance_port"),
        ("public_hostname = 'a b'\n", 1, "public_hostname"),
        ("[http]\nlisten_address = '0.0.0.0:8443'\n", 2, "tls_certificate"),
        ("\n\n= 5\n", 3, "not valid TOML"),
    ],
    ids=[
        "unknown key",
        "text for a number",
        "number for text",
        "privileged port",
        "upside down",
        "hostname",
        "half",
        "TOML",
    ],
)
def test_a_bad_configuration_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    CONFIGURATION.write_text(text)
    run("systemctl", "reset-failed", DAEMON, ok=False)
    since = f"@{time.time():.6f}"
    assert run("systemctl", "restart", DAEMON, ok=False).returncode != 0

    def said() -> bool:
        journal = run("journalctl", "-u", DAEMON, "-o", "cat", "--since", since).stdout
        return any(f"{CONFIGURATION}:{line}:" in entry and words in entry for entry in journal.splitlines())

    await_that(said, f"the journal says {CONFIGURATION}:{line}: … {words}")
    done = run("draupnir", "doctor", ok=False)
    assert done.returncode == 1
    assert f"{CONFIGURATION}:{line}:" in done.stdout


def test_clients_do_not_start_a_misconfigured_service_again_and_again() -> None:
    """Their connection is closed, further ones are refused, and a restart after the correction works at once."""
    before = CONFIGURATION.read_text()
    CONFIGURATION.write_text("nonsense = 1\n")
    run("systemctl", "stop", DAEMON)
    run("systemctl", "reset-failed", DAEMON, ok=False)
    since = f"@{time.time():.6f}"
    # The socket starts the service for this client.
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{URL}/health_check", timeout=300)
    await_that(
        lambda: run("systemctl", "is-active", "draupnir.socket", ok=False).returncode != 0, "the socket is closed"
    )
    for _ in range(20):
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{URL}/health_check", timeout=300)
    assert_doctor_says("configuration", f"{CONFIGURATION}:1: nonsense is an unknown key")
    journal = run("journalctl", "-u", DAEMON, "-o", "cat", "--since", since).stdout
    assert journal.count("nonsense is an unknown key") == 1, journal
    CONFIGURATION.write_text(before)
    run("systemctl", "restart", DAEMON)
    assert httpx.get(f"{URL}/health_check", timeout=300).status_code in (200, 503)


def test_the_daemon_does_not_start_a_misconfigured_helper_again_and_again(service: Service) -> None:
    """The helper is unavailable until its restart after the correction, which works at once."""
    before = CONFIGURATION.read_text()
    CONFIGURATION.write_text("min_instance_port = '7000'\n")
    since = f"@{time.time():.6f}"
    assert run("systemctl", "restart", HELPER, ok=False).returncode != 0
    closed = "draupnir-helper.socket"
    await_that(lambda: run("systemctl", "is-active", closed, ok=False).returncode != 0, "the socket is closed")
    for _ in range(5):
        assert httpx.get(f"{URL}/health_check", timeout=300).status_code == 503
    journal = run("journalctl", "-u", HELPER, "-o", "cat", "--since", since).stdout
    assert journal.count("the configuration is invalid") == 1, journal
    assert "min_instance_port" in journal
    CONFIGURATION.write_text(before)
    run("systemctl", "restart", HELPER)
    await_healthy(service)


def test_instances_do_not_suffer_from_a_bad_configuration(service: Service, image: int) -> None:
    """The API refuses clients, instead of letting them wait, until the configuration is fixed."""
    instance_id = int(service.create_instance(image)["id"])
    environment = dict(service.environment(instance_id))
    before = CONFIGURATION.read_text()
    CONFIGURATION.write_text("nonsense = 1\n")
    run("systemctl", "restart", HELPER, DAEMON, ok=False)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{URL}/health_check", timeout=300)
    query = ["psql", "-XAtq", "-d", "my_db", "-c", "SELECT count(*) FROM users"]
    assert run(*query, env=environment).stdout.strip() == "5000"
    CONFIGURATION.write_text(before)
    await_that(lambda: run("systemctl", "restart", DAEMON, ok=False).returncode == 0, "it starts again")
    service.destroy_instance(instance_id)


def test_doctor_reports_no_problem_for_a_healthy_service() -> None:
    done = run("draupnir", "doctor")
    assert "✗" not in done.stdout


def stop(*units: str) -> None:
    run("systemctl", "stop", *units)


def test_doctor_looks_at_the_metadata_in_a_shell_that_points_at_an_instance() -> None:
    prepared = {"PGHOST": "203.0.113.1", "PGPORT": "1", "PGSSLMODE": "verify-full", "PGDATABASE": "my_db"}
    assert run("draupnir", "doctor", env={**os.environ, **prepared}).returncode == 0


@pytest.mark.parametrize(
    ("part", "units", "words"),
    [
        ("helper", ("draupnir-helper.socket", HELPER), "systemctl status draupnir-helper"),
        ("daemon", ("draupnir.socket", DAEMON), "systemctl status draupnir.socket draupnir"),
        ("metadata", (METADATA,), "systemctl status draupnir-metadata"),
        ("uploads", ("ssh.socket", "ssh.service"), "systemctl enable --now ssh"),
    ],
    ids=["helper", "daemon", "metadata", "sshd"],
)
def test_doctor_gives_advice_for_a_stopped_part(part: str, units: tuple[str, ...], words: str) -> None:
    running = [unit for unit in units if run("systemctl", "is-active", unit, ok=False).returncode == 0]
    stop(*running)
    try:
        assert_doctor_says(part, words)
    finally:
        run("systemctl", "start", *running)


def assert_doctor_says(part: str, words: str) -> None:
    done = run("draupnir", "doctor", ok=False)
    assert done.returncode == 1, done.stdout
    assert f"✗ {part}:" in done.stdout, done.stdout
    assert words in done.stdout, done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_doctor_reports_an_unsafe_mount() -> None:
    def mount_anew(options: str) -> None:
        run("mount", "-o", f"remount,bind,noatime,nodev,nosuid,{options}", world.DATA)
        # Mounts in its namespace keep their options.
        run("systemctl", "restart", HELPER)

    mount_anew("exec")
    try:
        assert_doctor_says("storage", "or is mounted without nodev, noexec or nosuid")
    finally:
        mount_anew("noexec")


def test_doctor_reports_a_missing_secret() -> None:
    SECRET.unlink()
    assert_doctor_says("shared secret", str(SECRET))


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o600])
def test_doctor_reports_wrong_permissions_of_the_secret(mode: int) -> None:
    SECRET.chmod(mode)
    assert_doctor_says("shared secret", f"chmod 0640 {SECRET}")


def test_doctor_reports_a_wrong_owner_of_the_secret() -> None:
    run("chown", "upload:upload", SECRET)
    assert_doctor_says("shared secret", f"chown root:draupnir {SECRET}")


def test_doctor_reports_an_sshd_that_ignores_our_rules() -> None:
    SSHD.unlink()
    assert_doctor_says("uploads", "/etc/ssh/sshd_config.d/*.conf")
