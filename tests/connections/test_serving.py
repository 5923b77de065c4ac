"""Laws of serving, with a real process: it is ready only when it serves, and every request gets an answer."""

from __future__ import annotations

import signal
import socket
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.served import DEADLINE_S, Served, answer, free_port, trusting, write_certificate


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.stop()


def test_the_server_serves_after_it_has_notified_readiness(served: Served) -> None:
    served.told("READY=1")
    assert httpx.get(served.url).text == "http"


def test_the_watchdog_is_notified_repeatedly(tmp_path: Path) -> None:
    served = Served(tmp_path, watchdog_us=100_000)
    try:
        for _ in range(3):
            served.told("WATCHDOG=1")
    finally:
        served.stop()


def test_a_connection_made_before_the_server_serves_is_answered(served: Served) -> None:
    assert httpx.get(served.url, timeout=DEADLINE_S).text == "http"


def test_a_stop_is_notified_closes_the_application_and_exits_with_0(served: Served) -> None:
    served.told("READY=1")
    served.process.send_signal(signal.SIGTERM)
    served.told("STOPPING=1")
    served.told("STATUS=closed")
    assert served.process.wait(DEADLINE_S) == 0


def test_a_request_that_waits_is_answered_when_the_service_stops(served: Served) -> None:
    served.told("READY=1")
    with socket.create_connection(served.address, DEADLINE_S) as connection:
        connection.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        served.told("STATUS=waiting")
        served.process.send_signal(signal.SIGTERM)
        assert connection.recv(4096).startswith(b"HTTP/1.1 503 ")
    assert served.process.wait(DEADLINE_S) == 0


def test_an_application_that_cannot_start_is_never_ready(tmp_path: Path) -> None:
    served = Served(tmp_path, "broken")
    try:
        output, _ = served.process.communicate(timeout=DEADLINE_S)
        assert served.process.returncode == 1
        assert "no store" in output
        served.notifications.setblocking(False)
        assert served.notifications.recv(4096) == b"STOPPING=1"
    finally:
        served.stop()


def test_https_is_served_beside_http_once_ready(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    port = free_port()
    served = Served(tmp_path, "https", str(tmp_path), str(port))
    try:
        served.told("READY=1")
        assert httpx.get(f"https://localhost:{port}", verify=trusting(tmp_path)).text == "https"
        assert httpx.get(served.url).text == "http"
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(DEADLINE_S) == 0
    finally:
        served.stop()


def test_a_key_of_another_certificate_is_refused_by_name(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    write_certificate(other)
    (tmp_path / "key.pem").write_bytes((other / "key.pem").read_bytes())
    served = Served(tmp_path, "https", str(tmp_path), str(free_port()))
    try:
        output, _ = served.process.communicate(timeout=DEADLINE_S)
        assert served.process.returncode == 1
        assert "tls_certificate" in output
        assert "Traceback" not in output
    finally:
        served.stop()


class Secure:
    """The process with its HTTPS listener, and the folder of its certificate."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.arguments = arguments
        self.certificate = write_certificate(folder)
        self.served = self.start()

    def start(self, kept: socket.socket | None = None) -> Served:
        return Served(self.folder, "https", str(self.folder), str(self.port), *self.arguments, kept=kept)

    def connect(self) -> ssl.SSLSocket:
        """Open a TLS connection without verification."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", self.port), DEADLINE_S)
        return context.wrap_socket(plain, server_hostname="localhost")

    def shown(self) -> bytes | None:
        """Return the certificate that a new connection gets."""
        with self.connect() as connection:
            return connection.getpeercert(binary_form=True)

    def reload(self) -> None:
        self.served.process.send_signal(signal.SIGHUP)
        self.served.told("RELOADING=1")
        self.served.told("READY=1")


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Secure]:
    secure = Secure(tmp_path)
    secure.served.told("READY=1")
    yield secure
    secure.served.stop()


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def test_a_reload_closes_no_connection_and_serves_the_new_certificate(secure: Secure) -> None:
    with secure.connect() as idle, secure.connect() as waiting:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(idle) == (200, b"https")
        waiting.sendall(b"GET /gate HTTP/1.1\r\nHost: x\r\n\r\n")
        secure.served.told("STATUS=at the gate")
        renewed = write_certificate(secure.folder)
        assert secure.shown() == der(secure.certificate)
        secure.reload()
        assert secure.shown() == der(renewed)
        idle.sendall(b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(idle) == (200, b"opened")
        assert answer(waiting) == (200, b"through")


@pytest.mark.parametrize("broken", ["key of another", "no certificate", "key missing", "key encrypted"])
def test_a_broken_pair_is_refused_with_words_and_the_old_one_continues(
    secure: Secure, broken: str, tmp_path: Path
) -> None:
    key = secure.folder / "key.pem"
    match broken:
        case "key of another":
            kept = key.read_bytes()
            write_certificate(secure.folder)
            key.write_bytes(kept)
        case "no certificate":
            (secure.folder / "cert.pem").write_text("hello")
        case "key missing":
            key.unlink()
        case _:
            loaded = serialization.load_pem_private_key(key.read_bytes(), None)
            encryption = serialization.BestAvailableEncryption(b"a passphrase")
            pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
            key.write_bytes(loaded.private_bytes(pem, pkcs8, encryption))
    secure.reload()
    assert secure.shown() == der(secure.certificate)
    output = secure.served.stop()
    (line,) = [line for line in output.splitlines() if line.startswith("<3>")]
    assert str(key) in line
    assert "stays in use" in line


def test_a_reload_without_https_does_nothing(served: Served) -> None:
    served.told("READY=1")
    served.process.send_signal(signal.SIGHUP)
    served.told("RELOADING=1")
    served.told("READY=1")
    assert httpx.get(served.url).text == "http"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(secure: Secure, version: ssl.TLSVersion) -> None:
    context = trusting(secure.folder)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", secure.port), DEADLINE_S) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")


def test_over_a_restart_connections_wait_in_the_https_listener(secure: Secure, tmp_path: Path) -> None:
    (kept,) = secure.served.stored
    secure.served.process.send_signal(signal.SIGTERM)
    assert secure.served.process.wait(DEADLINE_S) == 0
    with socket.create_connection(("127.0.0.1", secure.port), DEADLINE_S) as plain:
        again = secure.start(kept)
        try:
            with trusting(secure.folder).wrap_socket(plain, server_hostname="localhost") as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert answer(connection) == (200, b"https")
            again.told("READY=1")
            assert not again.stored, "what is kept already is not kept twice"
        finally:
            again.stop()


def test_a_new_client_is_answered_before_the_service_stops(secure: Secure) -> None:
    with secure.connect() as connection:
        # The first connection is accepted, because a later one is answered.
        assert secure.shown()
        secure.served.process.send_signal(signal.SIGTERM)
        secure.served.told("STOPPING=1")
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(connection) == (200, b"https")
        assert connection.recv(1) == b""
    assert secure.served.process.wait(DEADLINE_S) == 0


def test_a_listener_that_is_no_longer_configured_is_closed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as kept:
        address = kept.getsockname()
        served = Served(tmp_path, kept=kept)
    try:
        served.told("FDSTOREREMOVE=1")
        served.told("READY=1")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, DEADLINE_S)
    finally:
        served.stop()
