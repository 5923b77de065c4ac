"""A test identity provider on loopback, and users who sign in with it through a scripted browser."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx

from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, DOMAIN
from tests.system.faults import await_healthy, await_that
from tests.system.service import URL, Service, run

PORT = 9000
ISSUER = f"http://127.0.0.1:{PORT}"
REDIRECT_URL = f"{URL}/oauth_callback"
BOSS = "boss@example.com"
CONFIGURATION = Path("/etc/draupnir/config.toml")
CLIENT_SECRET_FILE = Path("/etc/draupnir/oidc_client_secret")
PROGRAM = Path(__file__).parents[1] / "identity_provider.py"


class IdentityProvider:
    """The provider as a process that can get orders, be frozen and be stopped."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, PROGRAM, str(PORT), REDIRECT_URL])
        await_that(self._answers, "the identity provider answers")

    def _answers(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{ISSUER}/.well-known/openid-configuration").status_code == 200
        return False

    def obey(self, **orders: object) -> None:
        """Replace the orders; see tests/identity_provider.py."""
        assert httpx.post(f"{ISSUER}/orders", json=orders).status_code == 204

    @contextmanager
    def held(self) -> Iterator[None]:
        """Freeze it during the block: it accepts connections and does not answer."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@contextmanager
def signing_in(service: Service, **settings: str) -> Iterator[IdentityProvider]:
    """Configure the service with the provider and these settings during the block."""
    provider = IdentityProvider()
    before = CONFIGURATION.read_text()
    own = {"trusted_user_email_domain": DOMAIN, **settings}
    lines = [f'{key} = "{value}"\n' for key, value in own.items()] + [f'admins = ["{BOSS}"]\n']
    oidc = {
        "discovery_url": f"{ISSUER}/.well-known/openid-configuration",
        "client_id": CLIENT_ID,
        "redirect_url": REDIRECT_URL,
    }
    table = "\n[oidc]\n" + "".join(f'{key} = "{value}"\n' for key, value in oidc.items())
    CLIENT_SECRET_FILE.write_text(CLIENT_SECRET + "\n")
    CLIENT_SECRET_FILE.chmod(0o600)
    CONFIGURATION.write_text("".join(lines) + before + table)
    try:
        restart(service)
        yield provider
    finally:
        CONFIGURATION.write_text(before)
        CLIENT_SECRET_FILE.unlink()
        restart(service)
        provider.stop()
        metadata("DELETE FROM tokens; DELETE FROM sign_ins; DELETE FROM users")


def restart(service: Service) -> None:
    """Restart the daemon, which reads its configuration."""
    run("systemctl", "restart", "draupnir")
    await_healthy(service)


def metadata(sql: str) -> str:
    """Query the private metadata cluster."""
    connection = ["-h", "/run/draupnir-metadata", "-d", "draupnir"]
    return run("runuser", "-u", "draupnir", "--", "psql", "-XAtq", *connection, "-c", sql, cwd="/").stdout.strip()


def sign_in(service: Service, email: str) -> Service:
    """Return the service with the session of a signed-in user."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    begun = service.ask("POST", "/sign_ins", {"code_challenge": challenge})
    assert begun.status_code == 201, begun.text
    with httpx.Client(timeout=300) as browser:
        sent = browser.get(begun.json()["data"]["attributes"]["url"])
        assert sent.status_code == 302, sent.text
        form = dict(parse_qsl(urlsplit(sent.headers["location"]).query)) | {"email": email}
        vouched = browser.post(f"{ISSUER}/authorize", data=form)
        page = browser.get(vouched.headers["location"])
        assert page.status_code == 200, page.text
    (code,) = re.findall(r"<code>([A-Za-z0-9_-]+)</code>", page.text)
    answer = service.ask("POST", "/sessions", {"code": code, "code_verifier": verifier})
    assert answer.status_code == 201, answer.text
    return dataclasses.replace(service, token=answer.json()["data"]["attributes"]["token"])
