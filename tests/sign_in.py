"""A client and a browser that sign in, in one process with the service and the identity provider."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from starlette.types import ASGIApp

from draupnir.identity.encryption import Cipher
from draupnir.identity.oidc import Provider
from draupnir.operations.context import SignIn
from draupnir.settings import OidcSettings, Settings
from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, DOMAIN, IdentityProvider, b64

ISSUER = "http://127.0.0.1:9000"
HERE = "http://127.0.0.1:8432"
JANE, BOSS = "jane@example.com", "boss@example.com"
PORT = 43210
SECRET = "a-secret-for-tests-only"


def new_provider() -> IdentityProvider:
    return IdentityProvider(ISSUER, f"{HERE}/oauth_callback")


def configured(settings: Settings, idp: IdentityProvider) -> tuple[Settings, SignIn]:
    """Return settings with the provider, and the dependencies of sign-in."""
    oidc = OidcSettings(
        discovery_url=f"{ISSUER}/.well-known/openid-configuration", client_id=CLIENT_ID, redirect_url=idp.redirect_uri
    )
    changes = {"oidc": oidc, "trusted_user_email_domain": DOMAIN, "admins": frozenset({BOSS})}
    made = settings.model_copy(update=changes)
    provider = Provider(made, CLIENT_SECRET, httpx.ASGITransport(idp.app()))
    return made, SignIn(provider, Cipher(bytes(32)))


@dataclass
class Client:
    """The client program: it has a verifier, and exchanges a code for a session."""

    app: ASGIApp
    token: str = ""
    address: str = "10.0.0.1"
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    async def ask(self, method: str, path: str, attributes: dict[str, Any] | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        body = None if attributes is None else {"data": {"attributes": attributes}}
        transport = httpx.ASGITransport(self.app, client=(self.address, 1))
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as http:
            return await http.request(method, path, json=body, headers=headers)

    async def begin(self, port: int | None = PORT) -> str:
        """Return the url for a browser."""
        challenge = b64(hashlib.sha256(self.verifier.encode()).digest())
        answer = await self.ask("POST", "/sign_ins", {"code_challenge": challenge, "loopback_port": port})
        assert answer.status_code == 201, answer.text
        assert answer.json()["data"]["type"] == "sign_ins"
        return str(answer.json()["data"]["attributes"]["url"])

    async def redeem(self, code: str) -> httpx.Response:
        return await self.ask("POST", "/sessions", {"code": code, "code_verifier": self.verifier})


class Browser:
    """Keeps cookies, and follows redirects one by one."""

    def __init__(self, app: ASGIApp, idp: IdentityProvider, address: str = "10.0.0.1") -> None:
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, client=(address, 1)), mounts={ISSUER: httpx.ASGITransport(idp.app())}
        )

    async def to_provider(self, url: str) -> str:
        """Open the link, and return the redirect."""
        answer = await self.http.get(url)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def at_provider(self, url: str, email: str = JANE, **more: str) -> str:
        """Authenticate at the provider, and return the redirect."""
        form = dict(parse_qsl(urlsplit(url).query)) | {"email": email} | more
        answer = await self.http.post(f"{ISSUER}/authorize", data=form)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def sign_in(self, url: str, email: str = JANE) -> httpx.Response:
        """Go through the whole sign-in, and return this service's last answer."""
        return await self.http.get(await self.at_provider(await self.to_provider(url), email))


def code_of(answer: httpx.Response) -> str:
    """Return the client's code, from the redirect or from the page."""
    if answer.status_code == 302:
        target = urlsplit(answer.headers["location"])
        assert (target.scheme, target.netloc, target.path) == ("http", f"127.0.0.1:{PORT}", "/")
        return dict(parse_qsl(target.query))["code"]
    assert answer.status_code == 200, answer.text
    (code,) = re.findall(r"<code>([A-Za-z0-9_-]+)</code>", answer.text)
    return str(code)


async def session(app: ASGIApp, idp: IdentityProvider, email: str = JANE) -> Client:
    """Return a signed-in client."""
    client = Client(app)
    answer = await client.redeem(code_of(await Browser(app, idp).sign_in(await client.begin(), email)))
    assert answer.status_code == 201, answer.text
    client.token = answer.json()["data"]["attributes"]["token"]
    return client
