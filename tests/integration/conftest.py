"""A daemon with an identity provider, and its application."""

from __future__ import annotations

import dataclasses

import pytest
from starlette.applications import Starlette

from draupnir.app import create_app
from draupnir.operations.context import Context
from tests.identity_provider import IdentityProvider
from tests.sign_in import SECRET, configured, new_provider


@pytest.fixture
def idp() -> IdentityProvider:
    return new_provider()


@pytest.fixture
def signed(context: Context, idp: IdentityProvider) -> Context:
    """Provide the context of a daemon with the identity provider."""
    settings, sign_in = configured(context.settings, idp)
    return dataclasses.replace(context, settings=settings, sign_in=sign_in)


@pytest.fixture
def app(signed: Context) -> Starlette:
    return create_app(signed, SECRET.encode())
