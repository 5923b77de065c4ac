"""Only a definite answer of the identity provider decides about a user; an outage does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from draupnir.callers import Identity, Standing, User
from draupnir.identity.encryption import Cipher
from draupnir.operations import people
from draupnir.operations.context import Context, SignIn
from tests.identity_provider import IdentityProvider
from tests.sign_in import ISSUER

pytestmark = pytest.mark.anyio

JANE = Identity("jane@example.com", ISSUER, "subject of jane@example.com")


async def jane(context: Context, idp: IdentityProvider) -> User:
    """Provide the user Jane after a sign-in."""
    assert context.sign_in is not None
    encrypted = context.sign_in.cipher.encrypt(idp.grant(JANE.email), JANE.email)
    await context.store.users.save(JANE, encrypted)
    (user,) = await context.store.users.list_all()
    return user


async def test_an_active_user_is_confirmed_repeatedly(signed: Context, idp: IdentityProvider) -> None:
    """The provider rotates the refresh token each time."""
    user = await jane(signed, idp)
    for _ in range(3):
        assert await people.check(signed, user) is Standing.VALID
        (user,) = await signed.store.users.list_all()
    assert idp.asked == ["discovery", *["refresh_token"] * 3]


async def test_a_user_locked_at_the_provider_is_revoked(signed: Context, idp: IdentityProvider) -> None:
    user = await jane(signed, idp)
    idp.obey({"revoke": JANE.email})
    assert await people.check(signed, user) is Standing.REVOKED


@pytest.mark.parametrize(
    "orders",
    [
        {"fail": 500},
        {"fail": 503, "error": "invalid_grant"},
        {"fail": 404, "error": "invalid_grant"},
        {"fail": 429, "error": "invalid_grant"},
        {"fail": 302},
        {"fail": 400, "error": "invalid_request"},
        {"fail": 400, "error": ["invalid_grant"]},
        {"fail": 401, "error": "invalid_client"},
        {"fail": 400, "error": "temporarily_unavailable"},
        {"discovery": {"issuer": "https://elsewhere.example"}},
        {"discovery": {"token_endpoint": "http://elsewhere.example/token"}},
        {"discovery": {"jwks_uri": None}},
    ],
    ids=str,
)
async def test_an_outage_is_unknown(signed: Context, idp: IdentityProvider, orders: dict[str, Any]) -> None:
    user = await jane(signed, idp)
    idp.obey(orders)
    assert await people.check(signed, user) in {Standing.UNKNOWN, Standing.UNCLEAR}
    idp.obey({})
    assert await people.check(signed, user) is Standing.VALID


async def test_a_user_who_signs_in_during_the_check_is_not_revoked(signed: Context, idp: IdentityProvider) -> None:
    user = await jane(signed, idp)
    idp.obey({"revoke": JANE.email})
    await jane(signed, idp)
    assert await people.check(signed, user) is Standing.UNKNOWN


async def test_the_check_returns_unknown_without_key_or_provider(signed: Context, idp: IdentityProvider) -> None:
    user = await jane(signed, idp)
    assert signed.sign_in is not None
    other = SignIn(signed.sign_in.provider, Cipher(bytes(range(32))))
    assert await people.check(dataclasses.replace(signed, sign_in=other), user) is Standing.UNKNOWN
    assert await people.check(dataclasses.replace(signed, sign_in=None), user) is Standing.UNKNOWN
    assert idp.asked == []
