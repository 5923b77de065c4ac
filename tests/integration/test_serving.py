"""Laws of serving, held by a real process: ready only when it serves, and nobody is left without an answer."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).parents[2]
DEADLINE_S = 20

# Takes its place as systemd's child would: the socket is number 3, and LISTEN_PID is its own.
PROGRAM = """
import asyncio, contextlib, os, sys
from pathlib import Path
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.middleware import Middleware
from starlette.routing import Route
from draupnir import serving
from draupnir.api.edge import Edge
from draupnir.settings import HttpSettings, Settings

os.environ["LISTEN_PID"] = str(os.getpid())
serving.STOP_TIMEOUT_S = 1

async def hello(request):
    return PlainTextResponse(request.url.scheme)

async def wait(request):
    serving.notify("STATUS=waiting")
    await asyncio.Event().wait()

@contextlib.asynccontextmanager
async def lifespan(app):
    if "broken" in sys.argv:
        raise RuntimeError("no store")
    yield
    serving.notify("STATUS=closed")

https = HttpSettings()
if "https" in sys.argv:
    folder = Path(sys.argv[2])
    https = HttpSettings(listen_address=f"127.0.0.1:{sys.argv[3]}",
        tls_certificate=folder / "cert.pem", tls_private_key=folder / "key.pem")
app = Starlette(routes=[Route("/", hello), Route("/wait", wait)], middleware=[Middleware(Edge, settings=Settings())],
    lifespan=lifespan)
try:
    asyncio.run(serving.serve(app, serving.inherited_sockets(), https))
except serving.ServingError as error:
    sys.exit(str(error))
"""


class Served:
    """The process under test, its API's address, and what it has told systemd."""

    def __init__(self, folder: Path, *arguments: str, watchdog_us: int = 10**8) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]  # noqa: UP031
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(folder / "notify"))
        self.notifications.settimeout(DEADLINE_S)
        environment = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": str(watchdog_us),
            "LISTEN_FDS": "1",
        }
        command = f'exec {sys.executable} -W error -c "$0" "$@" 3<&{self.listener.fileno()}'
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", command, PROGRAM, *arguments],
            env=environment,
            pass_fds=[self.listener.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def told(self, state: str) -> None:
        """Waits until systemd would have been told the state."""
        while self.notifications.recv(4096).decode() != state:
            pass

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.listener.close()
        self.notifications.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.stop()


def test_it_serves_once_it_says_so(served: Served) -> None:
    served.told("READY=1")
    assert httpx.get(served.url).text == "http"


def test_the_watchdog_is_fed_again_and_again(tmp_path: Path) -> None:
    served = Served(tmp_path, watchdog_us=100_000)
    try:
        for _ in range(3):
            served.told("WATCHDOG=1")
    finally:
        served.stop()


def test_a_connection_made_before_it_serves_is_answered(served: Served) -> None:
    assert httpx.get(served.url, timeout=DEADLINE_S).text == "http"


def test_stopping_is_said_the_application_closed_and_the_end_is_good(served: Served) -> None:
    served.told("READY=1")
    served.process.send_signal(signal.SIGTERM)
    served.told("STOPPING=1")
    served.told("STATUS=closed")
    assert served.process.wait(DEADLINE_S) == 0


def test_a_request_that_waits_is_answered_when_the_service_stops(served: Served) -> None:
    served.told("READY=1")
    with socket.create_connection(("127.0.0.1", served.listener.getsockname()[1]), DEADLINE_S) as connection:
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


def write_certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_https_is_served_beside_http_once_ready(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    port = free_port()
    served = Served(tmp_path, "https", str(tmp_path), str(port))
    try:
        served.told("READY=1")
        trust = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        assert httpx.get(f"https://localhost:{port}", verify=trust).text == "https"
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
