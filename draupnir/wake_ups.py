"""Wakes a sleeping instance by a short connection, which also starts the idle timeout of its proxy."""

from __future__ import annotations

import asyncio
import contextlib
import struct

PATIENCE_S = 5.0
# The port accepts a connection only after data arrived (draupnir-port-.socket.d). Postgres does not log a client that
# requests GSSAPI encryption and disconnects, unlike after an SSLRequest or a partial message.
_GSSENC_REQUEST = struct.pack("!ii", 8, 80877104)


async def wake(port: int) -> None:
    """Connect, send a request and disconnect; ignore a port that does not listen."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_GSSENC_REQUEST)
            writer.close()
            await writer.wait_closed()
