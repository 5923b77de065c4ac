"""The job's own sessions with a cluster of the tests."""

from __future__ import annotations

from collections import deque

import pytest

from draupnir_helper.jobs import clusters
from tests.postgres import Cluster, binaries


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
