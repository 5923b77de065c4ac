"""HTTPS for the installed service, with a certificate that certbot's hook installs."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.served import write_certificate
from tests.system.faults import DAEMON
from tests.system.service import run

CONFIGURATION = Path("/etc/draupnir/config.toml")
TLS = Path("/etc/draupnir/tls")
HOOK = "/usr/lib/draupnir/certbot-hook"
PORT = 8443
TABLE = f"""[http]
listen_address = "0.0.0.0:{PORT}"
tls_certificate = "{TLS}/certificate.pem"
tls_private_key = "{TLS}/key.pem"
"""


class Certbot:
    """Certbot's files in a directory that only root may enter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o700)

    def renew(self, *, deploy: bool = True) -> bytes:
        """Deploy a new certificate like certbot, and return it as DER."""
        write_certificate(self.folder, socket.getfqdn())
        (self.folder / "cert.pem").rename(self.folder / "fullchain.pem")
        (self.folder / "key.pem").rename(self.folder / "privkey.pem")
        if deploy:
            self.deploy()
        return ssl.PEM_cert_to_DER_cert((self.folder / "fullchain.pem").read_text())

    def deploy(self) -> None:
        run(HOOK, env={**os.environ, "RENEWED_LINEAGE": str(self.folder)})


def connect(port: int = PORT) -> ssl.SSLSocket:
    """Open a TLS connection without verification."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30), server_hostname="localhost")


def shown() -> bytes:
    """Return the certificate that a new connection gets."""
    with connect() as connection:
        return connection.getpeercert(binary_form=True) or b""


@contextmanager
def https(folder: Path) -> Iterator[Certbot]:
    """Make the service listen on PORT, too, during the block."""
    before = CONFIGURATION.read_text()
    certbot = Certbot(folder)
    certbot.renew()
    try:
        CONFIGURATION.write_text(before.replace("[http]\n", TABLE))
        run("systemctl", "restart", DAEMON)
        yield certbot
    finally:
        CONFIGURATION.write_text(before)
        run("systemctl", "restart", DAEMON)
        for path in TLS.iterdir():
            path.unlink()
        TLS.rmdir()
