"""A process that serves a small application like the daemon, with the test in the role of systemd."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).parents[1]
DEADLINE_S = 20

# Acts like a child of systemd: the sockets are descriptors 3 and 4, and LISTEN_PID is its own.
PROGRAM = """
import asyncio, contextlib, os, sys
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from draupnir.serving import connections, listeners
from draupnir.api.edge import Edge
from draupnir.logs import log_to_journal
from draupnir.settings import HttpSettings, Settings

os.environ["LISTEN_PID"] = str(os.getpid())
listeners.STOP_TIMEOUT_S = 1
LIMITS_S = {"impatient": (0.6, 0.2), "unhurried": (2.0, 0.2), "keeping": (2.0, 0.7)}
for limit_s, keep_alive_s in (LIMITS_S[word] for word in sys.argv if word in LIMITS_S):
    connections.TIMEOUTS_S.update(dict.fromkeys(connections.TIMEOUTS_S, limit_s))
    listeners.HANDSHAKE_TIMEOUT_S = listeners.CLOSING_TIMEOUT_S = limit_s
    listeners.KEEP_ALIVE_S = keep_alive_s

async def hello(request):
    return PlainTextResponse(request.url.scheme)

async def echo(request):
    return PlainTextResponse(await request.body())

async def wait(request):
    listeners.notify("STATUS=waiting")
    await asyncio.Event().wait()

async def gate(request):
    listeners.notify("STATUS=at the gate")
    await opened.wait()
    return PlainTextResponse("through")

async def open_gate(request):
    opened.set()
    return PlainTextResponse("opened")

async def long(request):
    async def parts():
        try:
            for _ in range(1000):
                yield bytes(100_000)
            listeners.notify("STATUS=all was read")
        finally:
            listeners.notify("STATUS=no longer read")
    return StreamingResponse(parts())

@contextlib.asynccontextmanager
async def lifespan(app):
    global opened
    opened = asyncio.Event()
    if "broken" in sys.argv:
        raise RuntimeError("no store")
    yield
    listeners.notify("STATUS=closed")

log_to_journal()
https = HttpSettings()
if "https" in sys.argv:
    from pathlib import Path
    folder = Path(sys.argv[2])
    https = HttpSettings(listen_address=f"127.0.0.1:{sys.argv[3]}",
        tls_certificate=folder / "cert.pem", tls_private_key=folder / "key.pem")
app = Starlette(routes=[
    Route("/", hello), Route("/echo", echo, methods=["POST"]), Route("/wait", wait), Route("/long", long),
    Route("/gate", gate), Route("/open", open_gate),
], middleware=[Middleware(Edge, settings=Settings())], lifespan=lifespan)
try:
    asyncio.run(listeners.serve(app, listeners.inherit(), Settings(http=https)))
except listeners.ServingError as error:
    sys.exit(str(error))
"""


class Served:
    """The process under test, its API's address, and its notifications to systemd."""

    def __init__(
        self, folder: Path, *arguments: str, watchdog_us: int = 10**8, kept: socket.socket | None = None
    ) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        (folder / "notify").unlink(missing_ok=True)
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(folder / "notify"))
        self.notifications.settimeout(DEADLINE_S)
        self.stored: list[socket.socket] = []
        self.output: str | None = None
        environment = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": str(watchdog_us),
            "LISTEN_FDS": "2" if kept else "1",
            "LISTEN_FDNAMES": "draupnir.socket:https" if kept else "draupnir.socket",
        }
        passed = [self.listener, *([kept] if kept else [])]
        # Moved, not copied, so that a close by the process takes effect.
        redirections = " ".join(f"{number}<&{each.fileno()}-" for number, each in enumerate(passed, start=3))
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", f'exec {sys.executable} -W error -c "$0" "$@" {redirections}', PROGRAM, *arguments],
            env=environment,
            pass_fds=[each.fileno() for each in passed],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def told(self, state: str) -> None:
        """Wait for a notification of the state; keep the passed descriptors."""
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.notifications, 4096, 1)
            self.stored += [socket.socket(fileno=descriptor) for descriptor in descriptors]
            if message.decode().partition("\n")[0] == state:
                return

    def stop(self) -> str:
        """Kill it if it still runs; return its output."""
        if self.output is None:
            self.process.kill()
            self.output, _ = self.process.communicate()
        for each in (self.listener, self.notifications, *self.stored):
            each.close()
        return self.output


def write_certificate(folder: Path, *hostnames: str) -> x509.Certificate:
    """Create a self-signed cert.pem and key.pem for localhost and the other names."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(each) for each in ("localhost", *hostnames)]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return certificate


def trusting(folder: Path) -> ssl.SSLContext:
    """Return a TLS context that trusts only the folder's certificate."""
    return ssl.create_default_context(cafile=str(folder / "cert.pem"))


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer on the connection."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return response.status, response.read()


def everything(connection: socket.socket) -> bytes:
    """Read until the other end closes or resets, also if that shows in a write of TLS."""
    received = bytearray()
    try:
        while part := connection.recv(65536):
            received += part
    except (ConnectionResetError, BrokenPipeError):
        pass
    return bytes(received)
