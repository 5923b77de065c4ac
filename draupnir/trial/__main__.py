"""The process of one trial boot: reads a port and certificates from stdin, and writes one line of JSON.

The daemon starts the process, and kills it at the deadline. The process also ends when its stdin is closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import ssl
import sys
import tempfile
from dataclasses import dataclass

from draupnir.trial import checks
from draupnir.trial.sign_ins import Fault, Way

MAX_REQUEST_BYTES = 64 * 1024
# A hostile server cannot make this process use more: address space, processor time, file sizes, open files.
MAX_ADDRESS_SPACE_BYTES = 192 * 1024 * 1024
MAX_CPU_S = 60
MAX_FILE_BYTES = 64 * 1024
MAX_FILES = 64


@dataclass(frozen=True, slots=True)
class Credentials:
    """The PEM texts of the instance's authority, and of a client certificate with its key."""

    authority: str
    certificate: str
    key: str


def main() -> None:
    """Check the server, and write `{"fault": null}` or the fault."""
    # systemd sends SIGTERM to all processes of the service; a stop of the daemon must not fail an image.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    limit_resources()
    request = json.loads(sys.stdin.buffer.readline(MAX_REQUEST_BYTES))
    fault = asyncio.run(_try(request["port"], request["deadline_s"], _ways(request)))
    sys.stdout.write(json.dumps({"fault": fault}) + "\n")
    sys.stdout.flush()
    # Do not wait for connections that are being closed.
    os._exit(0)


def limit_resources() -> None:
    """Limit the resources of this process, and prevent child processes."""
    limits = {
        resource.RLIMIT_AS: MAX_ADDRESS_SPACE_BYTES,
        resource.RLIMIT_CPU: MAX_CPU_S,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_NOFILE: MAX_FILES,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


async def _try(port: int, deadline_s: float, ways: checks.Ways) -> str | None:
    # The daemon sends nothing more, so stdin becomes readable only when the daemon has ended.
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), os._exit, 1)
    try:
        async with asyncio.timeout(deadline_s):
            await checks.run(port, ways)
    except Fault as fault:
        return str(fault)
    except TimeoutError:
        return f"the checks did not finish within {deadline_s:.0f} s."
    except MemoryError:
        return "the server sent more than the memory limit allows."
    return None


def _ways(request: dict[str, str]) -> checks.Ways:
    authority = request["authority"]
    own = Credentials(authority, request["certificate"], request["key"])
    strange = Credentials(authority, request["strange_certificate"], request["strange_key"])
    superuser = Credentials(authority, request["superuser_certificate"], request["superuser_key"])
    return checks.Ways(
        Way("with draupnir's certificate", _context(own)),
        (
            Way("without TLS", None),
            Way("without a client certificate", ssl.create_default_context(cadata=authority)),
            Way("with a certificate of another authority", _context(strange)),
        ),
        request["superuser"],
        Way("with a certificate of its own", _context(superuser)),
    )


def _context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=credentials.authority)
    # OpenSSL loads a certificate only from a file; these are unnamed, so that none is left behind.
    with tempfile.TemporaryFile() as certificate, tempfile.TemporaryFile() as key:
        for file, text in ((certificate, credentials.certificate), (key, credentials.key)):
            file.write(text.encode())
            file.flush()
        context.load_cert_chain(f"/proc/self/fd/{certificate.fileno()}", f"/proc/self/fd/{key.fileno()}")
    return context


if __name__ == "__main__":
    main()
