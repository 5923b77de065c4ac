"""A small OpenID Connect provider with its own keys, which can forge, fail and revoke users on request.

Run as `python3 tests/identity_provider.py PORT REDIRECT_URI` it listens on loopback; imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import json
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlencode

import uvicorn
from authlib.jose import JsonWebKey, JsonWebSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT_ID = "draupnir-tests"
CLIENT_SECRET = "canary-client-secret-5f1d2c"
DOMAIN = "@example.com"
# The prefix of refresh tokens, so that a search finds them.
CANARY = "canary-refresh-token-"

Claims = dict[str, Any]


def b64(value: bytes | Claims) -> str:
    """Return the base64url of JOSE, without padding."""
    octets = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


@cache
def _key(whose: str) -> Any:
    """Return a cached key, because generation takes long."""
    return JsonWebKey.generate_key("RSA", 2048, {"kid": "one"}, is_private=True)


@dataclass
class Signer:
    """Signs ID tokens; `key` is listed in the JWK set, `stranger` is not."""

    key: Any = field(default_factory=lambda: _key("ours"))
    stranger: Any = field(default_factory=lambda: _key("a stranger's"))

    def sign(self, claims: Claims, header: Claims | None = None, key: Any = None) -> str:
        """Return a valid JWT, with the given changes."""
        head = {"alg": "RS256", "kid": "one", "typ": "JWT"} | (header or {})
        # JsonWebToken would replace the kid in the header by the key's own.
        token: bytes = JsonWebSignature().serialize_compact(head, json.dumps(claims), key or self.key)
        return token.decode()

    def jwks(self) -> Claims:
        """Return the JWK set."""
        return {"keys": [self.key.as_dict(is_private=False, kid=self.key.kid, use="sig", alg="RS256")]}


def _tampered(signer: Signer, claims: Claims) -> str:
    head, _, signature = signer.sign(claims).split(".")
    return f"{head}.{b64(claims | {'email': 'boss@example.com'})}.{signature}"


def _hs256_with_the_public_key(signer: Signer, claims: Claims) -> str:
    import hmac

    signed = f"{b64({'alg': 'HS256', 'kid': 'one', 'typ': 'JWT'})}.{b64(claims)}"
    return f"{signed}.{b64(hmac.digest(signer.key.as_pem(is_private=False), signed.encode(), 'sha256'))}"


def _with(header: Claims | None = None, without: str = "", **changes: Any) -> Callable[[Signer, Claims], str]:
    def forge(signer: Signer, claims: Claims) -> str:
        changed = {name: value(claims) if callable(value) else value for name, value in changes.items()}
        kept = {name: value for name, value in (claims | changed).items() if name != without}
        return signer.sign(kept, header)

    return forge


def _critical(signer: Signer, claims: Claims) -> str:
    # Built by hand, because newer versions of Authlib refuse to sign this.
    signed = f"{b64({'alg': 'RS256', 'kid': 'one', 'typ': 'JWT', 'crit': ['exp']})}.{b64(claims)}"
    signature = signer.key.get_op_key("sign").sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{b64(signature)}"


def _embedded_key(signer: Signer, claims: Claims) -> str:
    own = signer.stranger.as_dict(is_private=False)
    return signer.sign(claims, {"jwk": own, "kid": "two"}, signer.stranger)


NOW = time.time
FORGERIES: Mapping[str, Callable[[Signer, Claims], str]] = {
    "unsigned": lambda signer, claims: f"{b64({'alg': 'none', 'kid': 'one'})}.{b64(claims)}.",
    "signature cut off": lambda signer, claims: signer.sign(claims).rpartition(".")[0] + ".",
    "claims changed after signing": _tampered,
    "signed by a stranger under our key's name": lambda signer, claims: signer.sign(claims, key=signer.stranger),
    "HMAC with the public key": _hs256_with_the_public_key,
    "key brought along in the header": _embedded_key,
    "key by address": lambda signer, claims: signer.sign(
        claims, {"jku": "http://127.0.0.1:1/jwks", "kid": "two"}, signer.stranger
    ),
    "unknown key": _with({"kid": "nobody's"}),
    "critical extension": _critical,
    "another kind of JWT": _with({"typ": "at+jwt"}),
    "another issuer": _with(iss="https://accounts.example.net"),
    "issuer with a slash more": _with(iss=lambda claims: claims["iss"] + "/"),
    "no issuer": _with(without="iss"),
    "for another client": _with(aud="somebody-else"),
    "for nobody": _with(aud=[]),
    "for several, without azp": _with(aud=[CLIENT_ID, "somebody-else"]),
    "for several, given to another": _with(aud=[CLIENT_ID, "somebody-else"], azp="somebody-else"),
    "given to another": _with(azp="somebody-else"),
    "no audience": _with(without="aud"),
    "expired": _with(exp=lambda claims: int(NOW()) - 120),
    "never expires": _with(without="exp"),
    "expires at no number": _with(exp="tomorrow"),
    "expires at NaN": _with(exp=float("nan")),
    "issued in the future": _with(iat=lambda claims: int(NOW()) + 300),
    "issued an hour ago": _with(iat=lambda claims: int(NOW()) - 3600),
    "never issued": _with(without="iat"),
    "not yet valid": _with(nbf=lambda claims: int(NOW()) + 300),
    "another sign-in's nonce": _with(nonce="AAAAAAAAAAAAAAAAAAAAAA"),
    "no nonce": _with(without="nonce"),
    "nonce of another type": _with(nonce=lambda claims: [claims["nonce"]]),
    "no subject": _with(without="sub"),
    "address not verified": _with(email_verified=False),
    "verification missing": _with(without="email_verified"),
    "verification in words": _with(email_verified="true"),
    "no address": _with(without="email"),
    "address of another domain": _with(email="jane@example.org"),
    "domain as a suffix": _with(email="jane@evil-example.com"),
    "domain as a subdomain": _with(email="jane@example.com.evil.net"),
    "subdomain of the domain": _with(email="jane@mail.example.com"),
    "two at-signs": _with(email="jane@evil.net@example.com"),
    "address with a line end": _with(email="jane@example.com\n"),
    "address that looks alike": _with(email="jane@ехample.com"),  # noqa: RUF001 - the first two letters are Cyrillic
    "several addresses": _with(email=["jane@example.com"]),
    "another hosted domain": _with(hd="example.org"),
    "access token swapped": _with(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
    "nested without end": lambda signer, claims: f"{b64(b'[' * 3000)}.{b64(claims)}.AAAA",
    "too long": _with(padding="x" * 20_000),
    "no JWT": lambda signer, claims: "hello",
    "encrypted": lambda signer, claims: ".".join(["AAAA"] * 5),
}


@dataclass
class Code:
    """An issued authorization code: its user, and the required proof."""

    email: str
    nonce: str
    challenge: str
    redirect_uri: str


@dataclass
class IdentityProvider:
    """Confirms every user who types an address, remembers them by a cookie, and obeys `orders`:
    forge (a name of FORGERIES), fail (a status for the token endpoint), revoke (an address), rotate, no_refresh_token,
    hang (discovery or token: gives no answer), discovery (what it says of itself beside the truth), iss (who it says it
    is to the browser).
    """

    issuer: str
    redirect_uri: str
    signer: Signer = field(default_factory=Signer)
    codes: dict[str, Code] = field(default_factory=dict)
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    orders: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def app(self) -> Starlette:
        """Return the provider as an ASGI application."""
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.discovery),
                Route("/jwks", self.jwks),
                Route("/authorize", self.authorize),
                Route("/authorize", self.vouch, methods=["POST"]),
                Route("/token", self.token, methods=["POST"]),
                Route("/orders", self.order, methods=["POST"]),
            ]
        )

    async def discovery(self, request: Request) -> Response:
        self.asked.append("discovery")
        await self._hang("discovery")
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "scopes_supported": ["openid", "email", "offline_access"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "authorization_response_iss_parameter_supported": True,
            }
            | self.orders.get("discovery", {})
        )

    async def jwks(self, request: Request) -> Response:
        return JSONResponse(self.signer.jwks())

    async def authorize(self, request: Request) -> Response:
        asked = request.query_params
        assert (asked["client_id"], asked["response_type"]) == (CLIENT_ID, "code"), dict(asked)
        assert (asked["redirect_uri"], asked["code_challenge_method"]) == (self.redirect_uri, "S256"), dict(asked)
        assert {"openid", "email", "offline_access"} <= set(asked["scope"].split()), dict(asked)
        if known := request.cookies.get("session"):
            return self._send_back(asked, known)
        fields = "".join(
            f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
            for name, value in asked.items()
        )
        return HTMLResponse(
            f'<form method="post">{fields}<input name="email" id="email">'
            '<button id="sign-in">Sign in</button><button id="deny" name="deny" value="1">No</button></form>'
        )

    async def vouch(self, request: Request) -> Response:
        asked = dict(parse_qsl((await request.body()).decode()))
        if asked.get("deny"):
            return self._redirect(asked, error="access_denied")
        answer = self._send_back(asked, asked["email"])
        answer.set_cookie("session", asked["email"])
        return answer

    def _send_back(self, asked: Mapping[str, str], email: str) -> Response:
        code = secrets.token_urlsafe(16)
        self.codes[code] = Code(email, asked["nonce"], asked["code_challenge"], asked["redirect_uri"])
        return self._redirect(asked, code=code)

    def _redirect(self, asked: Mapping[str, str], **answer: str) -> Response:
        query = urlencode({**answer, "state": asked["state"], "iss": self.orders.get("iss", self.issuer)})
        return RedirectResponse(f"{asked['redirect_uri']}?{query}", 303)

    async def token(self, request: Request) -> Response:
        given = dict(parse_qsl((await request.body()).decode()))
        self.asked.append(given.get("grant_type", ""))
        await self._hang("token")
        if status := self.orders.get("fail"):
            return JSONResponse({"error": self.orders.get("error", "server_error")}, int(status))
        if (given.get("client_id"), given.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return JSONResponse({"error": "invalid_client"}, 401)
        if given["grant_type"] == "refresh_token":
            email = self.refresh_tokens.pop(given["refresh_token"], None)
            if email is None:
                return JSONResponse({"error": "invalid_grant"}, 400)
            return JSONResponse({"access_token": "a", "token_type": "Bearer", "refresh_token": self.grant(email)})
        code = self.codes.pop(given["code"], None)
        if code is None or code.redirect_uri != given["redirect_uri"] or code.challenge != challenge_of(given):
            return JSONResponse({"error": "invalid_grant"}, 400)
        tokens = {"access_token": "a", "token_type": "Bearer", "expires_in": 60}
        if not self.orders.get("no_refresh_token"):
            tokens["refresh_token"] = self.grant(code.email)
        return JSONResponse({**tokens, "id_token": self.id_token(code)})

    async def _hang(self, where: str) -> None:
        if self.orders.get("hang") == where:
            await asyncio.Event().wait()

    def grant(self, email: str) -> str:
        """Issue a refresh token for a user."""
        token = CANARY + secrets.token_urlsafe(16)
        self.refresh_tokens[token] = email
        return token

    def id_token(self, code: Code) -> str:
        """Return the ID token for a code, forged if ordered."""
        claims = good_claims(self.issuer, code.nonce, code.email)
        if forge := self.orders.get("forge"):
            return FORGERIES[forge](self.signer, claims)
        return self.signer.sign(claims, {"kid": self.signer.key.kid})

    async def order(self, request: Request) -> Response:
        self.obey(await request.json())
        return Response(status_code=204)

    def obey(self, orders: dict[str, Any]) -> None:
        """Replace the orders; `revoke` and `rotate` are executed at once."""
        if email := orders.pop("revoke", None):
            self.refresh_tokens = {token: whose for token, whose in self.refresh_tokens.items() if whose != email}
        if orders.pop("rotate", None):
            self.signer = Signer(JsonWebKey.generate_key("RSA", 2048, {"kid": secrets.token_hex(4)}, is_private=True))
        self.orders = orders


def good_claims(issuer: str, nonce: str, email: str = "jane@example.com") -> Claims:
    """Return the claims of a valid ID token."""
    now = int(NOW())
    return {
        "iss": issuer,
        "aud": CLIENT_ID,
        "sub": "subject of " + email,
        "email": email,
        "email_verified": True,
        "nonce": nonce,
        "iat": now,
        "exp": now + 300,
    }


def challenge_of(given: Mapping[str, str]) -> str:
    """Return the S256 code challenge of the request's verifier."""
    return b64(hashlib.sha256(given.get("code_verifier", "").encode()).digest())


if __name__ == "__main__":
    port, redirect_uri = int(sys.argv[1]), sys.argv[2]
    provider = IdentityProvider(f"http://127.0.0.1:{port}", redirect_uri)
    uvicorn.run(provider.app(), host="127.0.0.1", port=port, log_level="warning")
