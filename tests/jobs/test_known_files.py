"""The extract job knows every file of a running server."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg

from draupnir_helper.jobs.known_files import prune
from draupnir_helper.jobs.rows import Rows
from tests.postgres import Cluster

CONTENT = """
CREATE UNLOGGED TABLE unlogged AS SELECT generate_series(1, 1000) AS x;
CREATE TEMPORARY TABLE temporary AS SELECT 1 AS x;
CREATE TABLE plain AS SELECT generate_series(1, 1000) AS x;
CREATE INDEX ON plain (x);
"""


def test_every_file_of_a_server_is_known(cluster: Cluster, tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(CONTENT)
        connection.execute("VACUUM plain")
        connection.execute("CHECKPOINT")
        shutil.copytree(cluster.data, tmp_path / "copy")
        connection.execute("DROP TABLE unlogged, plain")
    kept = {path for path in (tmp_path / "copy/base").rglob("[0-9]*") if path.is_file()}
    prune(tmp_path / "copy", 17, rows)
    assert list(rows) == []
    assert all(path.exists() for path in kept)
