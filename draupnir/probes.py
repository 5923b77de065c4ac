"""Runs the sign-in probes of the trial boot in a child process that can be killed; independent of Postgres."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress

from draupnir import certificates
from draupnir.errors import ImageFailed
from draupnir.models import Authority

# Within this deadline Postgres starts, and about a hundred sign-ins are tried.
DEADLINE_S = 120.0
# After the deadline the process has this time to report what was too slow.
LAST_WORDS_S = 5.0
# Only so many trials run at a time. trial/__main__.py limits the memory of each; the service limits that of all.
AT_ONCE = 2
MAX_ANSWER_BYTES = 4096
MAX_FAULT_CHARACTERS = 600


class Probes:
    """Runs trials, a few at a time."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._places = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, port: int, authority: Authority, superuser: str) -> None:
        """Run all probes against the server on the port. Raises ImageFailed("trial_failed") with the fault."""
        credentials = certificates.issue_client(authority)
        impostor = certificates.issue_client(authority, superuser)
        stranger = certificates.issue_client(certificates.create_authority())
        request = {
            "port": port,
            "deadline_s": self._deadline_s,
            "authority": credentials.ca_certificate,
            "certificate": credentials.client_certificate,
            "key": credentials.client_key,
            "superuser": superuser,
            "superuser_certificate": impostor.client_certificate,
            "superuser_key": impostor.client_key,
            "strange_certificate": stranger.client_certificate,
            "strange_key": stranger.client_key,
        }
        async with self._places:
            answer = await _ask_child(json.dumps(request).encode() + b"\n", self._deadline_s + LAST_WORDS_S)
        try:
            fault = json.loads(answer)["fault"]
        except (ValueError, KeyError, TypeError):
            fault = f"the checks did not end within {self._deadline_s:.0f} s, or used too much memory."
        if fault is not None:
            raise ImageFailed("trial_failed", f"Trial boot: {str(fault)[:MAX_FAULT_CHARACTERS]}")


async def _ask_child(request: bytes, deadline_s: float) -> bytes:
    """Run a process with the request, return its answer, or no bytes if it is late, and end the process."""
    # The request goes to stdin, because others can read arguments and environment. A closed stdin ends the process.
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
        # An answer that is too long raises ValueError.
        with suppress(TimeoutError, ConnectionError, ValueError):
            async with asyncio.timeout(deadline_s):
                process.stdin.write(request)
                await process.stdin.drain()
                return await process.stdout.readline()
        return b""
    finally:
        # process.kill() would reap a process that has ended, before asyncio can.
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        await process.wait()
