"""Signing in: a client starts it, a browser goes through the identity provider, the client gets a session for a code.

Each step works once and for one party. The link goes to the client that asked. A secret in a cookie binds the state to
the browser that followed the link. The code is useless without the client's verifier. Nonce and verifier for the
provider derive from the browser's secret, so the stored values are not enough to sign in.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from draupnir.callers import Role, Token
from draupnir.errors import ProviderUnavailable, SignInGone, SignInNotConfigured, SignInRefused
from draupnir.operations import tokens
from draupnir.operations.context import Context, SignIn
from draupnir.operations.tokens import digest_of
from draupnir.store.sign_ins import Pending

log = logging.getLogger(__name__)

LIFETIME = timedelta(minutes=10)
CODE_LIFETIME = timedelta(seconds=60)
AUTHENTICATE_PATH = "/authenticate"
_RANDOM_BYTES = 32
# These error codes of RFC 6749 section 4.1.2.1 mean a problem of the provider.
_OUTAGES = frozenset({"server_error", "temporarily_unavailable"})


@dataclass(frozen=True, slots=True)
class Answer:
    """The parameters of the provider's redirect: a code or an error, and the issuer."""

    code: str | None
    error: str | None
    issuer: str | None


async def begin(context: Context, code_challenge: str, loopback_port: int | None) -> tuple[str, datetime]:
    """Start a sign-in for a client; return the url for a browser, and its expiry.

    Raises SignInNotConfigured.
    """
    _configured(context)
    link = secrets.token_urlsafe(_RANDOM_BYTES)
    await context.store.sign_ins.insert(digest_of(link), code_challenge, loopback_port, LIFETIME)
    url = f"{context.settings.public_url}{AUTHENTICATE_PATH}?{urlencode({'sign_in': link})}"
    return url, datetime.now(UTC) + LIFETIME


async def send_off(context: Context, link: str) -> tuple[str, str]:
    """Use the link; return the url at the provider for the browser, and a secret that binds the browser.

    Raises SignInNotConfigured, SignInGone, ProviderUnavailable. After ProviderUnavailable the link can be used again.
    """
    provider = _configured(context).provider
    browser, state = secrets.token_urlsafe(_RANDOM_BYTES), secrets.token_urlsafe(_RANDOM_BYTES)
    url = await provider.authorization_url(state, _nonce(browser, state), _verifier(browser, state))
    if not await context.store.sign_ins.open(digest_of(link), digest_of(browser), digest_of(state)):
        raise SignInGone("The link is used or expired; start the sign-in again.")
    return url, browser


async def come_back(context: Context, state: str, browser: str) -> Pending:
    """Check that the same browser has returned, and use up the state. Raises SignInNotConfigured, SignInGone."""
    _configured(context)
    pending = await context.store.sign_ins.come_back(digest_of(state), digest_of(browser))
    if pending is None:
        raise SignInGone("The sign-in belongs to another browser, or is used or expired; start again.")
    return pending


async def vouch(context: Context, pending: Pending, state: str, browser: str, answer: Answer) -> tuple[str, str]:
    """Get the identity from the provider; return the e-mail address, and the code for the client.

    Raises SignInRefused, ProviderUnavailable; both end the sign-in.
    """
    sign_in = _configured(context)
    try:
        if answer.error in _OUTAGES:
            raise ProviderUnavailable("it sent the browser back because it is unavailable")
        if answer.code is None:
            raise SignInRefused("the provider sent the browser back without a code")
        identity, refresh_token = await sign_in.provider.identify(
            answer.code, answer.issuer, _nonce(browser, state), _verifier(browser, state)
        )
        await context.store.users.save(identity, sign_in.cipher.encrypt(refresh_token, identity.email))
        code = secrets.token_urlsafe(_RANDOM_BYTES)
        await context.store.sign_ins.vouch(pending, identity.email, digest_of(code), CODE_LIFETIME)
    except (SignInRefused, ProviderUnavailable) as error:
        log.warning("a sign-in failed: %s", error.reason if isinstance(error, ProviderUnavailable) else error.detail)
        await context.store.sign_ins.abandon(pending)
        raise
    return identity.email, code


async def redeem(context: Context, code: str, verifier: str) -> tuple[Token, str, Role]:
    """Exchange the client's code for a session. The code is used up in any case. Raises SignInRefused."""
    _configured(context)
    found = await context.store.sign_ins.redeem(digest_of(code))
    if found is None or not hmac.compare_digest(_challenge(verifier).encode(), found[1].encode()):
        raise SignInRefused("The code is wrong, used or expired; start the sign-in again.")
    return await tokens.start_session(context, found[0])


def _configured(context: Context) -> SignIn:
    if context.sign_in is None:
        raise SignInNotConfigured(
            "Sign-in is not possible, because no identity provider is configured; use the shared secret with"
            " `draupnir-client authenticate --token-file FILE`, or ask the administrator to configure [oidc]."
        )
    return context.sign_in


def _nonce(browser: str, state: str) -> str:
    return _derive(browser, f"nonce {state}")


def _verifier(browser: str, state: str) -> str:
    return _derive(browser, f"code_verifier {state}")


def _derive(browser: str, purpose: str) -> str:
    return _base64url(hmac.digest(browser.encode(), purpose.encode(), "sha256"))


def _challenge(verifier: str) -> str:
    return _base64url(hashlib.sha256(verifier.encode(errors="replace")).digest())


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
