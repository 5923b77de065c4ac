"""Validates an ID token and returns its identity. No other module accepts claims of the identity provider."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authlib.jose import JsonWebKey, JsonWebToken, KeySet
from authlib.jose.errors import JoseError
from authlib.oidc.core import CodeIDToken

from draupnir.callers import Identity
from draupnir.identity import emails

GOOGLE = "https://accounts.google.com"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
LEEWAY_S = 60
# A code is exchanged at once, so an old token belongs to another sign-in.
MAX_AGE_S = 600
MAX_BYTES = 16 * 1024

_SIGNED_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC"}


class IdTokenRefused(Exception):
    """The token is invalid; the message has the reason for the journal, and does not quote the token."""


class UnknownKey(IdTokenRefused):
    """The token names an unknown key; the provider may have new ones."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The required claims: issuer, audience, nonce, and the domain of the e-mail address (`domain` starts with @)."""

    issuer: str
    client_id: str
    nonce: str
    domain: str


def import_keys(document: object) -> KeySet:
    """Return the signing keys of a JWK set; ignore unknown key types, as RFC 7517 section 5 requires."""
    found = document.get("keys") if isinstance(document, Mapping) else None
    keys = []
    for each in found if isinstance(found, list) else []:
        if not isinstance(each, Mapping) or each.get("kty") not in _KEY_TYPES.values() or each.get("use") == "enc":
            continue
        try:
            keys.append(JsonWebKey.import_key(dict(each)))
        except (JoseError, KeyError, ValueError):
            continue
    return KeySet(keys)


def check(token: object, keys: KeySet, expected: Expected, access_token: str | None = None) -> Identity:
    """Return the identity in the token. Raises IdTokenRefused, and its subclass UnknownKey."""
    if not isinstance(token, str) or len(token) > MAX_BYTES or not _SIGNED_JWT.fullmatch(token):
        raise IdTokenRefused("it is not a signed JWT")
    try:
        claims = JsonWebToken(ALGORITHMS).decode(
            token,
            lambda header, payload: _key_for(header, keys),
            claims_cls=CodeIDToken,
            claims_options={
                "iss": {"essential": True, "value": expected.issuer},
                "aud": {"essential": True, "value": expected.client_id},
                "sub": {"essential": True},
            },
            claims_params={
                "nonce": expected.nonce,
                "client_id": expected.client_id,
                "access_token": access_token,
            },
        )
        _check_types(claims)
        claims.validate(leeway=LEEWAY_S)
    except JoseError as error:
        raise IdTokenRefused(error.error) from error
    except (RecursionError, ValueError) as error:
        raise IdTokenRefused("it is malformed") from error
    if claims["iat"] < time.time() - MAX_AGE_S:
        raise IdTokenRefused("it was issued too long ago")
    return _identity(claims, expected)


def _key_for(header: Mapping[str, Any], keys: KeySet) -> Any:
    if "crit" in header:
        raise IdTokenRefused("it has critical extensions, which are not supported")
    if str(header.get("typ", "JWT")).upper() != "JWT":
        raise IdTokenRefused("it is another kind of JWT")
    try:
        key = keys.find_by_kid(header.get("kid"))
    except ValueError as error:
        raise UnknownKey("it is signed with a key that the provider does not list") from error
    algorithm = header["alg"]
    if key.kty != _KEY_TYPES[algorithm[:2]] or key.tokens.get("alg", algorithm) != algorithm:
        raise IdTokenRefused("its key is for another algorithm")
    return key


def _check_types(claims: Mapping[str, object]) -> None:
    """Check the types of the claims, because Authlib accepts values such as NaN, which pass comparisons."""
    for name, kind in {"exp": int, "iat": int, "sub": str, "nonce": str}.items():
        if type(claims.get(name)) is not kind:
            raise IdTokenRefused(f"its {name} is missing or of the wrong type")
    if type(claims.get("nbf", 0)) is not int:
        raise IdTokenRefused("its nbf is of the wrong type")
    audience = claims.get("aud")
    if not isinstance(audience, str) and not (
        isinstance(audience, list) and all(isinstance(each, str) for each in audience)
    ):
        raise IdTokenRefused("its aud is missing or of the wrong type")


def _identity(claims: Mapping[str, Any], expected: Expected) -> Identity:
    email, hosted_domain = claims.get("email"), claims.get("hd")
    if not isinstance(email, str) or not emails.PATTERN.fullmatch(email):
        raise IdTokenRefused("its e-mail address is missing or has unusual characters")
    if claims.get("email_verified") is not True:
        raise IdTokenRefused("its e-mail address is not verified")
    domain = expected.domain.lower()
    if not hmac.compare_digest("@" + email.lower().partition("@")[2], domain):
        raise IdTokenRefused("its e-mail address is of another domain")
    # With Google, a private account can have an e-mail address of the domain.
    if (hosted_domain is not None or expected.issuer == GOOGLE) and hosted_domain != domain[1:]:
        raise IdTokenRefused("its account is not in the domain")
    return Identity(email.lower(), expected.issuer, claims["sub"])
