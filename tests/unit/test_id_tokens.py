"""Every forged ID token is refused, and valid ones are accepted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from authlib.jose import JsonWebKey

from draupnir.callers import Identity
from draupnir.identity import id_tokens
from draupnir.identity.id_tokens import GOOGLE, Expected, IdTokenRefused, UnknownKey, check, import_keys
from tests.identity_provider import CLIENT_ID, FORGERIES, Signer, good_claims

ISSUER = "https://id.example.com"
EXPECTED = Expected(ISSUER, CLIENT_ID, "the-nonce", "@example.com")


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def claims(**changes: Any) -> dict[str, Any]:
    return good_claims(ISSUER, "the-nonce") | changes


@pytest.mark.parametrize("shape", FORGERIES)
def test_a_forged_token_is_refused(signer: Signer, shape: str) -> None:
    with pytest.raises(IdTokenRefused) as refused:
        check(FORGERIES[shape](signer, claims()), import_keys(signer.jwks()), EXPECTED, "a")
    assert "jane" not in str(refused.value)


@pytest.mark.parametrize(
    "honest",
    [
        {},
        {"email": "Jane@Example.COM"},
        {"aud": [CLIENT_ID]},
        {"aud": [CLIENT_ID, "somebody-else"], "azp": CLIENT_ID},
        {"azp": CLIENT_ID},
        {"hd": "example.com"},
        {"nbf": 0},
    ],
    ids=json.dumps,
)
def test_an_honest_token_names_its_bearer(signer: Signer, honest: dict[str, Any]) -> None:
    token = signer.sign(claims(**honest))
    assert check(token, import_keys(signer.jwks()), EXPECTED) == Identity(
        "jane@example.com", ISSUER, "subject of jane@example.com"
    )


@pytest.mark.parametrize("value", [None, 5, b"", "", [], {}, "a.b", "a.b.c.d", "..", "é.é.é", "[" * 4000])
def test_a_value_that_is_not_a_token_is_refused(signer: Signer, value: object) -> None:
    with pytest.raises(IdTokenRefused):
        check(value, import_keys(signer.jwks()), EXPECTED)


def test_google_must_confirm_the_domain_of_the_account(signer: Signer) -> None:
    expected = Expected(GOOGLE, CLIENT_ID, "the-nonce", "@example.com")
    keys = import_keys(signer.jwks())
    with pytest.raises(IdTokenRefused, match="not in the domain"):
        check(signer.sign(claims(iss=GOOGLE)), keys, expected)
    assert check(signer.sign(claims(iss=GOOGLE, hd="example.com")), keys, expected).email == "jane@example.com"


def test_an_elliptic_key_serves_as_well_and_only_for_its_own_algorithm(signer: Signer) -> None:
    key = JsonWebKey.generate_key("EC", "P-256", {"kid": "one"}, is_private=True)
    keys = import_keys({"keys": [key.as_dict(is_private=False, kid="one")]})
    assert check(signer.sign(claims(), {"alg": "ES256"}, key), keys, EXPECTED).email == "jane@example.com"
    with pytest.raises(IdTokenRefused, match="another algorithm"):
        check(signer.sign(claims()), keys, EXPECTED)


def test_an_unknown_key_type_does_not_affect_other_keys(signer: Signer) -> None:
    strange: list[object] = [{"kty": "AKP", "kid": "new"}, {"kty": "RSA", "kid": "broken"}, "key", {"use": "enc"}]
    keys = import_keys({"keys": [*strange, *signer.jwks()["keys"]]})
    assert check(signer.sign(claims()), keys, EXPECTED).email == "jane@example.com"


def test_a_key_for_encryption_signs_nothing(signer: Signer) -> None:
    keys = import_keys({"keys": [signer.jwks()["keys"][0] | {"use": "enc"}]})
    with pytest.raises(UnknownKey):
        check(signer.sign(claims()), keys, EXPECTED)


def test_only_asymmetric_algorithms_are_taken() -> None:
    assert {algorithm[:2] for algorithm in id_tokens.ALGORITHMS} == {"RS", "PS", "ES"}
