"""A connection to an instance that says nothing: it wakes what sleeps, and sets the idle clock of its proxy going."""

from __future__ import annotations

import asyncio
import contextlib

PATIENCE_S = 5.0


async def knock(port: int) -> None:
    """Connect and hang up; nobody there is nobody to wake."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
