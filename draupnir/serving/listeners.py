"""Serves the application on the sockets that systemd passes, and notifies systemd of the service's state.

The two protocols of systemd used here, LISTEN_FDS and NOTIFY_SOCKET, are small and stable: see sd_listen_fds(3)
and sd_notify(3). systemd also keeps the HTTPS listener while the daemon is restarted, see FileDescriptorStoreMax=.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from draupnir.serving import tls
from draupnir.serving.admission import Connections
from draupnir.serving.connections import (
    CLOSING_TIMEOUT_S,
    HANDSHAKE_TIMEOUT_S,
    KEEP_ALIVE_S,
    LAST_REQUEST_S,
    MAX_HEADER_BYTES,
    Connection,
)
from draupnir.settings import HttpSettings, Settings

FIRST_PASSED_FD = 3
STOP_TIMEOUT_S = 5
BACKLOG = 4096
ACCEPT_AGAIN_S = 1.0
KEPT_LISTENER = "https"

log = logging.getLogger(__name__)


class ServingError(Exception):
    """The service cannot serve. The message says why and what to do."""


@dataclass(frozen=True)
class Inherited:
    """The sockets from systemd: those of draupnir.socket, and the HTTPS listener that an earlier daemon stored."""

    sockets: Sequence[socket.socket] = ()
    kept: socket.socket | None = None


def inherit() -> Inherited:
    """Return the listening sockets from systemd, or none if they are for another process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return Inherited()
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    sockets = [socket.socket(fileno=fd) for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + count)]
    for inherited in sockets:
        inherited.set_inheritable(False)
    kept = sockets.pop(names.index(KEPT_LISTENER)) if KEPT_LISTENER in names else None
    return Inherited(sockets, kept)


def notify(state: str, *sockets: socket.socket) -> None:
    """Notify systemd of a state, such as `READY=1`. Do nothing without NOTIFY_SOCKET."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        # A name that starts with @ is in the abstract namespace, for which the kernel uses a NUL.
        notifier.connect("\0" + address[1:] if address.startswith("@") else address)
        socket.send_fds(notifier, [state.encode()], [each.fileno() for each in sockets])


def watchdog_interval_s() -> float | None:
    """Return the interval of watchdog notifications, half of systemd's limit, or None without a watchdog."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    allowed_us = int(os.environ.get("WATCHDOG_USEC", "0"))
    return allowed_us / 2_000_000 if allowed_us else None


class Server(uvicorn.Server):
    """uvicorn's server, without signal handlers, and with an event that is set when it serves or has failed to start.

    It accepts connections itself, to count them before their TLS handshake, which uses the current `context`.
    """

    def __init__(self, config: uvicorn.Config, connections: Connections, context: ssl.SSLContext | None = None) -> None:
        super().__init__(config)
        self.settled = asyncio.Event()
        self.context = context
        self._connections = connections
        self._accepting: list[asyncio.Task[None]] = []
        self._beginning: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers: two servers share one process, and `serve` stops both."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, then set `settled`. `started` is true if the start succeeded."""
        try:
            await super().startup([])
        finally:
            self.settled.set()
        if self.started:
            self._accepting = [asyncio.create_task(self._accept(each)) for each in sockets or ()]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, and wait up to STOP_TIMEOUT_S for running requests."""
        for accepting in self._accepting:
            accepting.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        if self._beginning:
            await asyncio.wait(self._beginning, timeout=LAST_REQUEST_S)
        await super().shutdown(sockets)

    async def _accept(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        while True:
            try:
                self._admit(*await asyncio.get_running_loop().sock_accept(listener))
            except OSError as error:
                log.warning("connections cannot be accepted now: %s", error)
                await asyncio.sleep(ACCEPT_AGAIN_S)
            except Exception:
                # The outermost handler: an error with one client must not stop the accept loop.
                log.exception("a connection could not be accepted")
            # With many new clients sock_accept never yields, and established connections would starve.
            await asyncio.sleep(0)

    def _admit(self, accepted: socket.socket, peer: object) -> None:
        connection = Connection(
            self._connections,
            # An operator may configure a unix socket, whose peers have no address.
            self._connections.network_of_host(str(peer[0]) if isinstance(peer, tuple) else None),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        if not self._connections.admit(connection):
            accepted.close()
            return
        connection.handshake = asyncio.create_task(self._begin(connection, accepted))
        self._beginning.add(connection.handshake)
        connection.handshake.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: Connection, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        timeouts_s = {"ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S, "ssl_shutdown_timeout": CLOSING_TIMEOUT_S}
        try:
            await loop.connect_accepted_socket(
                lambda: connection, accepted, ssl=self.context, **(timeouts_s if self.context else {})
            )
        except OSError:
            # The handshake failed: the client does not use TLS, does not trust the certificate, or was too slow.
            self._connections.leave(connection)


def https_listener(listen_address: str, kept: socket.socket | None) -> socket.socket:
    """Return the listener on `host:port` or `[v6]:port`: the stored one, or a new one, which is stored with systemd.

    Raises ServingError.
    """
    host, _, port = listen_address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        address = found[0][4]
        if kept is not None and kept.getsockname() == address:
            return kept
        forget(kept)
        listener = socket.create_server(address, family=family, backlog=BACKLOG)
    except (OSError, OverflowError, ValueError) as error:
        raise ServingError(f"[http] listen_address {listen_address} cannot be listened on: {error}.") from error
    notify(f"FDSTORE=1\nFDNAME={KEPT_LISTENER}", listener)
    return listener


def forget(kept: socket.socket | None) -> None:
    """Close a listener that is no longer configured, and remove it from systemd's store."""
    if kept is not None:
        notify(f"FDSTOREREMOVE=1\nFDNAME={KEPT_LISTENER}")
        kept.close()


async def serve(app: ASGIApp, inherited: Inherited, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, and reload the certificate on SIGHUP. Raises ServingError."""
    http = settings.http
    connections = Connections(proxies=settings.trusted_proxy_cidrs if settings.use_x_forwarded_for else ())
    servers = [(Server(_config(app), connections), list(inherited.sockets))]
    secure: Server | None = None
    if http.listen_address:
        try:
            secure = Server(_config(app, lifespan="off"), connections, tls.load(http))
        except tls.CertificateError as error:
            raise ServingError(str(error)) from error
        servers.append((secure, [https_listener(http.listen_address, inherited.kept)]))
    else:
        forget(inherited.kept)

    def stop() -> None:
        notify("STOPPING=1")
        for server, _ in servers:
            server.should_exit = True

    def reload() -> None:
        _reload_certificate(secure, http)

    loop = asyncio.get_running_loop()
    for number, act in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, reload)):
        loop.add_signal_handler(number, act)
    running: list[asyncio.Task[None]] = []
    for server, listening in servers:
        running.append(asyncio.create_task(server.serve(listening)))
        await server.settled.wait()
        if not server.started:
            stop()
            await asyncio.gather(*running)
            raise ServingError("the service could not start; see the reason in the lines above.")
    notify("READY=1")
    watchdog = asyncio.create_task(_feed_watchdog())
    await asyncio.gather(*running)
    watchdog.cancel()


def _reload_certificate(server: Server | None, http: HttpSettings) -> None:
    """Use the current certificate file for new connections, or keep the old certificate if the file is invalid."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    if server is not None:
        try:
            server.context = tls.load(http)
        except tls.CertificateError as error:
            log.error("%s The old certificate stays in use.", error)
        else:
            log.info("new connections use the new certificate in %s", http.tls_certificate)
    notify("READY=1")


async def _feed_watchdog() -> None:
    interval_s = watchdog_interval_s()
    while interval_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)


def _config(app: ASGIApp, lifespan: str = "on") -> uvicorn.Config:
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
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
    )
