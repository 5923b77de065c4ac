"""A daemon with an identity provider, and its application."""

from __future__ import annotations

import dataclasses
from collections import deque

import pytest
from starlette.applications import Starlette

from draupnir.app import create_app
from draupnir.operations.context import Context
from draupnir_helper.jobs import clusters
from tests.identity_provider import IdentityProvider
from tests.postgres import Cluster, binaries
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


@pytest.fixture
def job(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> clusters.Cluster:
    """The job's own sessions, on the cluster of the tests."""
    environment = clusters._environment() | {"PGPORT": str(cluster.port)}
    monkeypatch.setattr(clusters, "_environment", lambda: environment)
    # The constructor reads /srv/pgdata.
    made = clusters.Cluster.__new__(clusters.Cluster)
    made.major, made.directory, made.superuser = int(binaries().parent.name), cluster.directory, "postgres"
    made._log = deque()
    return made
