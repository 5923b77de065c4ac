"""A minimal Postgres client for the trial, with limits for everything the server sends.

libpq does not fit: it buffers messages of up to 1 GB, and hides the SQLSTATE of a refused connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

# One message, and all messages of a connection, have these limits.
MAX_MESSAGE_BYTES = 64 * 1024
MAX_CONNECTION_BYTES = 1024 * 1024
SERVER_NAME = "localhost"
_PROTOCOL_3_0 = 3 << 16
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
# These are notices, parameters, notifications, the cancel key and the protocol version.
_IGNORED = (b"N", b"S", b"A", b"K", b"v")


class Refusal(StrEnum):
    """Why the connection failed without a SQLSTATE."""

    UNREACHABLE = "nothing listens on the port"
    CLOSED = "the server closed the connection without an answer"
    NO_TLS = "the server does not support TLS"
    TLS_FAILED = "the TLS handshake failed"
    NONSENSE = "the server violated the Postgres protocol or sent too much"


class Refused(Exception):
    """The server refused the connection or a statement, with a SQLSTATE or another reason."""

    def __init__(self, reason: Refusal | str) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def text(self) -> str:
        """Return the reason as the end of a sentence."""
        return self.reason if isinstance(self.reason, Refusal) else f"SQLSTATE {self.reason}"


class PasswordAsked(Exception):
    """The server asked for a password or other credentials, so its pg_hba.conf is not that of an instance."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of the server."""

    host: str
    port: int


class Session:
    """An authenticated connection. Raises Refused if the server violates the protocol."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._left_bytes = MAX_CONNECTION_BYTES

    async def execute(self, statement: str) -> None:
        """Run a statement to its end, and discard its rows. Raises Refused with its SQLSTATE."""
        async for _ in self.rows(statement):
            pass

    async def first_column(self, query: str, limit: int) -> list[str]:
        """Return the first column of at most `limit` rows. With more rows the connection becomes unusable."""
        found: list[str] = []
        async for value in self.rows(query):
            found.append(value)
            if len(found) == limit:
                break
        return found

    async def rows(self, statement: str) -> AsyncIterator[str]:
        """Yield the first column of each row, with surrogate escapes for bytes that are not UTF-8."""
        await self._send(b"Q", statement.encode(errors="surrogateescape") + b"\0")
        refused: Refused | None = None
        while True:
            kind, body = await self._receive()
            if kind == b"Z":
                if refused is not None:
                    raise refused
                return
            if kind == b"D":
                yield _first_field(body)
            elif kind == b"E":
                refused = Refused(_sqlstate(body))
            elif kind not in (b"T", b"C", b"I"):
                raise Refused(Refusal.NONSENSE)

    async def authenticate(
        self, user: str, database: str, *, replication: bool = False, options: str | None = None
    ) -> None:
        """Authenticate as the user. Raises Refused, PasswordAsked."""
        parameters = {"user": user, "database": database, "application_name": "draupnir trial boot"}
        if replication:
            parameters["replication"] = "true"
        if options is not None:
            parameters["options"] = options
        texts = (
            b"".join(f"{name}\0{value}\0".encode(errors="surrogateescape") for name, value in parameters.items())
            + b"\0"
        )
        self._writer.write(struct.pack("!ii", 8 + len(texts), _PROTOCOL_3_0) + texts)
        kind, body = await self._receive()
        if kind == b"E":
            raise Refused(_sqlstate(body))
        if kind != b"R":
            raise Refused(Refusal.NONSENSE)
        if body != bytes(4):
            raise PasswordAsked

    async def await_ready(self) -> None:
        """Wait until the session is ready for statements. Raises Refused."""
        while True:
            kind, body = await self._receive()
            if kind == b"Z":
                return
            raise Refused(_sqlstate(body) if kind == b"E" else Refusal.NONSENSE)

    def close(self) -> None:
        """Close the connection, without waiting for the server."""
        self._writer.write(struct.pack("!ci", b"X", 4))
        self._writer.close()

    async def _send(self, kind: bytes, body: bytes) -> None:
        try:
            self._writer.write(kind + struct.pack("!i", 4 + len(body)) + body)
            await self._writer.drain()
        except OSError as error:
            raise Refused(Refusal.CLOSED) from error

    async def _receive(self) -> tuple[bytes, bytes]:
        """Return the next relevant message."""
        while True:
            try:
                kind, length = struct.unpack("!ci", await self._reader.readexactly(5))
                self._left_bytes -= length
                if not 4 <= length <= MAX_MESSAGE_BYTES or self._left_bytes < 0:
                    raise Refused(Refusal.NONSENSE)
                body = await self._reader.readexactly(length - 4)
            except ssl.SSLError as error:
                # With TLS 1.3 the server checks a client certificate only after the handshake.
                raise Refused(Refusal.TLS_FAILED) from error
            except (OSError, EOFError) as error:
                raise Refused(Refusal.CLOSED) from error
            if kind not in _IGNORED:
                return kind, body


async def connect(address: Address, tls: ssl.SSLContext | None) -> Session:
    """Connect to the server, with TLS if there is a context. Raises Refused."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        reader, writer = await asyncio.open_connection(
            address.host, address.port, family=family, limit=MAX_MESSAGE_BYTES
        )
    except OSError as error:
        raise Refused(Refusal.UNREACHABLE) from error
    try:
        if tls is not None:
            await _start_tls(reader, writer, tls)
    except BaseException:
        writer.transport.abort()
        raise
    return Session(reader, writer)


async def _start_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext) -> None:
    try:
        writer.write(_SSL_REQUEST)
        if (answer := await reader.readexactly(1)) != b"S":
            raise Refused(Refusal.NO_TLS if answer == b"N" else Refusal.NONSENSE)
        await writer.start_tls(tls, server_hostname=SERVER_NAME)
    except ssl.SSLError as error:
        raise Refused(Refusal.TLS_FAILED) from error
    except (OSError, EOFError) as error:
        raise Refused(Refusal.CLOSED) from error


def _first_field(body: bytes) -> str:
    try:
        (length,) = struct.unpack_from("!i", body, 2)
    except struct.error as error:
        raise Refused(Refusal.NONSENSE) from error
    return "" if length < 0 else body[6 : 6 + length].decode(errors="surrogateescape")


def _sqlstate(body: bytes) -> str:
    """Return the SQLSTATE of an ErrorResponse, whose fields are a letter and a text each."""
    code = next((field[1:] for field in body.split(b"\0") if field.startswith(b"C")), b"")
    return code.decode() if len(code) == 5 and code.isalnum() and code.isascii() else "XX000"
