"""The client of the OpenID Connect provider: authorization urls, identities, and checks of refresh tokens."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from dataclasses import dataclass
from typing import Any

import httpx
from authlib.integrations.httpx_client import AsyncOAuth2Client, OAuthError
from authlib.jose import KeySet

from draupnir.callers import Identity, Standing
from draupnir.errors import ProviderUnavailable, SignInRefused
from draupnir.identity import id_tokens
from draupnir.identity.id_tokens import GOOGLE, Expected, IdTokenRefused
from draupnir.settings import DISCOVERY_PATH, Settings, is_private

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
# The provider's metadata and keys are cached for this long. A withdrawn key is trusted no longer than this.
FRESH_S = 3600.0


@dataclass(frozen=True, slots=True)
class Metadata:
    """The provider's metadata: its endpoints, the client authentication method, and the scopes."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    auth_method: str
    scope: str
    names_itself: bool
    keys: KeySet


class Provider:
    """The configured provider. Every method may raise ProviderUnavailable."""

    def __init__(
        self, settings: Settings, client_secret: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        assert settings.oidc is not None
        assert settings.trusted_user_email_domain is not None
        self._oidc = settings.oidc
        self._domain = settings.trusted_user_email_domain
        self._redirect_url = settings.redirect_url
        self._client_secret = client_secret
        self._transport = transport
        # Loading the machine's authorities takes 25 ms, and a given transport does not need them.
        self._tls = ssl.create_default_context() if transport is None else True
        self._metadata: Metadata | None = None
        self._stale_at_s = 0.0
        self._lock = asyncio.Lock()
        self._failures = 0

    async def describe(self) -> Metadata:
        """Return the provider's metadata, fetched again if the cache has expired."""
        return await self._discover()

    async def authorization_url(self, state: str, nonce: str, verifier: str) -> str:
        """Return the url at the provider where a browser signs in."""
        metadata = await self._discover()
        # Google returns a refresh token only with prompt=consent, and does not support the scope for it.
        extra = {"access_type": "offline", "prompt": "consent"} if metadata.issuer == GOOGLE else {}
        async with self._client(metadata) as client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint, state=state, code_verifier=verifier, nonce=nonce, **extra
            )
        return str(url)

    async def identify(self, code: str, issuer: str | None, nonce: str, verifier: str) -> tuple[Identity, str]:
        """Exchange the code for an identity and a refresh token. Raises SignInRefused with a reason for the journal."""
        metadata = await self._discover()
        # RFC 9207: a code of one provider must not be sent to another.
        if issuer != metadata.issuer and (issuer is not None or metadata.names_itself):
            raise SignInRefused("the answer comes from another provider")
        try:
            async with asyncio.timeout(TIMEOUT_S), self._client(metadata) as client:
                tokens = await client.fetch_token(
                    metadata.token_endpoint, grant_type="authorization_code", code=code, code_verifier=verifier
                )
        except OAuthError as error:
            raise SignInRefused(f"the provider refuses the code ({error.error!r})") from error
        except (httpx.HTTPError, TimeoutError, TypeError, ValueError) as error:
            raise _unavailable(error) from error
        identity = await self._check(metadata, tokens, nonce)
        refresh_token = tokens.get("refresh_token")
        if not isinstance(refresh_token, str) or not refresh_token:
            raise SignInRefused("the provider returned no refresh token; allow this client offline access there")
        return identity, refresh_token

    async def check_refresh_token(self, refresh_token: str) -> tuple[Standing, str]:
        """Return the provider's answer about the refresh token, and the token to use from now on. Never raises.

        An outage returns UNKNOWN, or UNCLEAR if the provider may have received the request and issued a new token.
        """
        try:
            metadata = await self._discover()
            async with asyncio.timeout(TIMEOUT_S), self._client(metadata) as client:
                client.register_compliance_hook("refresh_token_response", _require_an_answer)
                tokens = await client.refresh_token(metadata.token_endpoint, refresh_token=refresh_token)
        except OAuthError as error:
            if error.error == "invalid_grant":
                return Standing.REVOKED, refresh_token
            # An error of this server, such as invalid_client, says nothing about the user.
            log.warning("the identity provider could not be queried: it answers %.60r", error.error)
            return Standing.UNKNOWN, refresh_token
        except (ProviderUnavailable, httpx.HTTPError, TimeoutError, TypeError, ValueError) as error:
            log.warning("the identity provider could not be queried: %s", type(error).__name__)
            return Standing.UNKNOWN if _was_not_heard(error) else Standing.UNCLEAR, refresh_token
        renewed = tokens.get("refresh_token")
        return Standing.VALID, renewed if isinstance(renewed, str) and renewed else refresh_token

    async def _check(self, metadata: Metadata, tokens: dict[str, Any], nonce: str) -> Identity:
        expected = Expected(metadata.issuer, self._oidc.client_id, nonce, self._domain)
        token, access_token = tokens.get("id_token"), tokens.get("access_token")
        try:
            try:
                return id_tokens.check(token, metadata.keys, expected, access_token)
            except id_tokens.UnknownKey:
                newer = await self._discover(anew=True)
                return id_tokens.check(token, newer.keys, expected, access_token)
        except IdTokenRefused as error:
            raise SignInRefused(f"the ID token is refused: {error}") from error

    async def _discover(self, *, anew: bool = False) -> Metadata:
        failures = self._failures
        async with self._lock:
            if self._metadata is None or anew or time.monotonic() >= self._stale_at_s:
                # Tasks that waited for a failed attempt must not each repeat it, one after the other.
                if failures != self._failures:
                    raise ProviderUnavailable("it did not answer another request at the same time")
                try:
                    async with asyncio.timeout(TIMEOUT_S):
                        self._metadata = await self._fetch_metadata()
                except (httpx.HTTPError, TimeoutError, TypeError, ValueError) as error:
                    self._failures += 1
                    raise _unavailable(error) from error
                self._stale_at_s = time.monotonic() + FRESH_S
            return self._metadata

    async def _fetch_metadata(self) -> Metadata:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, verify=self._tls, transport=self._transport) as client:
            answer = await client.get(self._oidc.discovery_url)
            document = answer.raise_for_status().json()
            issuer, jwks_uri = document.get("issuer"), document.get("jwks_uri")
            if self._oidc.discovery_url != f"{str(issuer).rstrip('/')}{DISCOVERY_PATH}":
                raise ValueError("the provider names another issuer than the discovery_url")
            endpoints = [document.get("authorization_endpoint"), document.get("token_endpoint"), jwks_uri]
            if not all(isinstance(url, str) and is_private(url) for url in endpoints):
                raise ValueError("the provider names an address that is missing or not https")
            keys = (await client.get(jwks_uri)).raise_for_status().json()
        methods = document.get("token_endpoint_auth_methods_supported", ())
        offline = "offline_access" in document.get("scopes_supported", ())
        return Metadata(
            issuer=issuer,
            authorization_endpoint=endpoints[0],
            token_endpoint=endpoints[1],
            jwks_uri=jwks_uri,
            # Providers disagree about the escaping of special characters in Basic authentication.
            auth_method="client_secret_post" if "client_secret_post" in methods else "client_secret_basic",
            scope="openid email offline_access" if offline else "openid email",
            names_itself=document.get("authorization_response_iss_parameter_supported") is True,
            keys=id_tokens.import_keys(keys),
        )

    def _client(self, metadata: Metadata) -> AsyncOAuth2Client:
        return AsyncOAuth2Client(
            client_id=self._oidc.client_id,
            client_secret=self._client_secret,
            token_endpoint_auth_method=metadata.auth_method,
            code_challenge_method="S256",
            scope=metadata.scope,
            redirect_uri=self._redirect_url,
            timeout=TIMEOUT_S,
            verify=self._tls,
            transport=self._transport,
        )


def _was_not_heard(error: Exception) -> bool:
    """Return whether the error happened before the provider could process the request."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code < 500
    return isinstance(error, ProviderUnavailable | httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def _require_an_answer(response: httpx.Response) -> httpx.Response:
    """Return the response if its status can come from the token endpoint (RFC 6749 section 5), not from a proxy."""
    if response.status_code not in (200, 400, 401):
        raise httpx.HTTPStatusError(f"status {response.status_code}", request=response.request, response=response)
    return response


def _unavailable(error: Exception) -> ProviderUnavailable:
    reason = type(error).__name__ if isinstance(error, httpx.HTTPError | TimeoutError) else str(error)
    log.warning("the identity provider does not answer as it should: %s", reason)
    return ProviderUnavailable(reason)
