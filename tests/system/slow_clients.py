"""Clients that occupy connections; each reconnects when it is disconnected."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

HTTP, HTTPS = ("127.0.0.1", 8432), ("127.0.0.1", 8443)
DRIP_S = 1.0

Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _drip(writer: asyncio.StreamWriter) -> None:
    """Repeat until the connection is closed."""
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(DRIP_S)


async def _half_a_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /health_check HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    await _drip(writer)


async def _body_drop_by_drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"POST /images HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    await _drip(writer)


async def _unread_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
    await _drip(writer)


async def _half_a_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x01\x02\x00\x01")
    await reader.read()


KINDS: dict[str, tuple[tuple[str, int], Act]] = {
    "half a header": (HTTP, _half_a_header),
    "a body drop by drop": (HTTP, _body_drop_by_drop),
    "unread answers": (HTTP, _unread_answers),
    "half a handshake": (HTTPS, _half_a_handshake),
}


async def _client(kind: str, shed: Counter[str], connected: Counter[str]) -> None:
    address, act = KINDS[kind]
    while True:
        plain = socket.socket()
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            plain.setblocking(False)
            await asyncio.get_running_loop().sock_connect(plain, address)
            reader, writer = await asyncio.open_connection(sock=plain)
        except BaseException:
            # The crowd may be told to end while this client connects.
            plain.close()
            raise
        connected[kind] += 1
        try:
            with suppress(OSError):
                await act(reader, writer)
            shed[kind] += 1
        finally:
            writer.transport.abort()


async def _crowd(count: int, shed: Counter[str], connected: Counter[str], over: asyncio.Event) -> None:
    kinds = itertools.cycle(KINDS)
    clients = [asyncio.create_task(_client(next(kinds), shed, connected)) for _ in range(count)]
    await over.wait()
    for client in clients:
        client.cancel()
    ends = await asyncio.gather(*clients, return_exceptions=True)
    await asyncio.sleep(0)  # transports that were aborted close their sockets in the next turn of the loop
    broken = [end for end in ends if not isinstance(end, asyncio.CancelledError)]
    assert not broken, broken


@contextmanager
def slow_clients(count: int) -> Iterator[tuple[Counter[str], Counter[str]]]:
    """Run `count` clients of all kinds during the block; yield disconnections and connections by kind."""
    shed, connected = Counter[str](), Counter[str]()
    loop, over = asyncio.new_event_loop(), asyncio.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        crowd = thread.submit(loop.run_until_complete, _crowd(count, shed, connected, over))
        try:
            yield shed, connected
        finally:
            loop.call_soon_threadsafe(over.set)
            crowd.result()
            loop.close()
