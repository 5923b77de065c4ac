"""Runs the trial boot's sign-ins in a child process that can be killed; knows nothing of Postgres itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress

from draupnir import certificates
from draupnir.errors import ImageFailed
from draupnir.models import Credentials

# For all of it: Postgres comes up, and some hundred sign-ins are tried.
DEADLINE_S = 120.0
# How much longer the process has to tell what kept it until the deadline.
LAST_WORDS_S = 5.0
# Each may use as much memory as trial/__main__.py says, and the service has a limit for all together.
AT_ONCE = 2
MAX_ANSWER_BYTES = 4096
MAX_FAULT_CHARACTERS = 600


class Probes:
    """Runs trials, a few at a time."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._places = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, port: int, credentials: Credentials) -> None:
        """Try every way in to the server behind the port. Raises ImageFailed("trial_failed") naming what is wrong."""
        stranger = certificates.issue_client(certificates.create_authority())
        request = {
            "port": port,
            "deadline_s": self._deadline_s,
            "authority": credentials.ca_certificate,
            "certificate": credentials.client_certificate,
            "key": credentials.client_key,
            "strange_certificate": stranger.client_certificate,
            "strange_key": stranger.client_key,
        }
        async with self._places:
            answer = await _ask_child(json.dumps(request).encode() + b"\n", self._deadline_s + LAST_WORDS_S)
        try:
            fault = json.loads(answer)["fault"]
        except (ValueError, KeyError, TypeError):
            fault = f"it did not end within {self._deadline_s:.0f} s, or used too much memory."
        if fault is not None:
            raise ImageFailed("trial_failed", f"Trial boot: {str(fault)[:MAX_FAULT_CHARACTERS]}")


async def _ask_child(request: bytes, deadline_s: float) -> bytes:
    """The answer of a process that is given the request; empty if it gives none in time. It is gone afterwards."""
    # By stdin, since arguments and environment can be read by others; it ends with us, since its stdin then does.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        "draupnir.trial",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"LC_ALL": "C.UTF-8"},
        limit=MAX_ANSWER_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        # A longer answer than it has to give is a ValueError.
        with suppress(TimeoutError, ConnectionError, ValueError):
            async with asyncio.timeout(deadline_s):
                process.stdin.write(request)
                await process.stdin.drain()
                return await process.stdout.readline()
        return b""
    finally:
        # Not process.kill(), which waits for a process that has ended, and asyncio would find it gone.
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        await process.wait()
