"""Serves the application on the sockets that systemd hands over, and tells systemd how the service is.

The two protocols of systemd used here, LISTEN_FDS and NOTIFY_SOCKET, are small and stable: see sd_listen_fds(3)
and sd_notify(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from draupnir.settings import HttpSettings

FIRST_PASSED_FD = 3
STOP_TIMEOUT_S = 5


class ServingError(Exception):
    """The service cannot serve; the message says why and what to do."""


def inherited_sockets() -> list[socket.socket]:
    """The listening sockets handed over by systemd, none if they are meant for another process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    sockets = [socket.socket(fileno=fd) for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + count)]
    for inherited in sockets:
        inherited.set_inheritable(False)
    return sockets


def notify(state: str) -> None:
    """Tells systemd the state, such as `READY=1`; does nothing where systemd does not ask for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        # A name that opens with @ is in the abstract namespace, which the kernel writes with a NUL.
        notifier.connect("\0" + address[1:] if address.startswith("@") else address)
        notifier.sendall(state.encode())


def watchdog_interval_s() -> float | None:
    """How often to tell systemd that we are alive: half of what it allows; None if it does not watch us."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    allowed_us = int(os.environ.get("WATCHDOG_USEC", "0"))
    return allowed_us / 2_000_000 if allowed_us else None


class Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to the daemon and says when it has begun to serve or has given up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes no signal: two servers share one process, and `serve` stops both."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to serve; afterwards `settled` is set, and `started` tells whether it serves."""
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


def https_socket(listen_address: str) -> socket.socket:
    """A listening socket on `host:port` or `[v6]:port`; raises ServingError."""
    host, _, port = listen_address.rpartition(":")
    try:
        return socket.create_server(
            (host.strip("[]"), int(port)), family=socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        )
    except (OSError, OverflowError, ValueError) as error:
        raise ServingError(f"[http] listen_address {listen_address} cannot be listened on: {error}.") from error


def check_certificate(http: HttpSettings) -> None:
    """Raises ServingError if the certificate and its key cannot be read or do not belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(str(http.tls_certificate), str(http.tls_private_key))
    except (OSError, ssl.SSLError) as error:
        raise ServingError(
            f"[http] tls_certificate {http.tls_certificate} with tls_private_key {http.tls_private_key} "
            f"cannot be used: {error}; the user draupnir must be able to read both."
        ) from error


async def serve(app: ASGIApp, sockets: list[socket.socket], http: HttpSettings) -> None:
    """Serves until SIGTERM or SIGINT; raises ServingError if it cannot start."""
    servers = [(Server(_config(app)), sockets)]
    if http.listen_address:
        check_certificate(http)
        secure = _config(app, lifespan="off", ssl_certfile=http.tls_certificate, ssl_keyfile=http.tls_private_key)
        servers.append((Server(secure), [https_socket(http.listen_address)]))

    def stop() -> None:
        notify("STOPPING=1")
        for server, _ in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    running: list[asyncio.Task[None]] = []
    for server, listening in servers:
        running.append(asyncio.create_task(server.serve(listening)))
        await server.settled.wait()
        if not server.started:
            stop()
            await asyncio.gather(*running)
            raise ServingError("the service could not start; the lines above say why.")
    notify("READY=1")
    watchdog = asyncio.create_task(_feed_watchdog())
    await asyncio.gather(*running)
    watchdog.cancel()


async def _feed_watchdog() -> None:
    interval_s = watchdog_interval_s()
    while interval_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)


def _config(app: ASGIApp, lifespan: str = "on", **tls: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan=lifespan,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
        **tls,  # type: ignore[arg-type]
    )
