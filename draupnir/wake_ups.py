"""A short connection to an instance: it wakes what sleeps, and sets the idle clock of its proxy going."""

from __future__ import annotations

import asyncio
import contextlib
import struct

PATIENCE_S = 5.0
# The port accepts only a connection that speaks (draupnir-port-.socket.d). Postgres logs nothing about a client that
# asks for GSSAPI encryption and hangs up; after an SSLRequest, or less than a whole message, it does.
_GSSENC_REQUEST = struct.pack("!ii", 8, 80877104)


async def wake(port: int) -> None:
    """Connect, speak and hang up; nobody there is nobody to wake."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_GSSENC_REQUEST)
            writer.close()
            await writer.wait_closed()
