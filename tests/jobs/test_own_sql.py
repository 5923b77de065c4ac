"""The finalise job's own SQL reads catalogs and functions, because the data may replace a view by an endless one."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

from draupnir_helper import jobs
from draupnir_helper.jobs import clusters
from tests.postgres import Cluster

SQL = Path(jobs.__file__).parent / "sql"


def test_no_statement_of_the_job_reads_a_view(cluster: Cluster) -> None:
    with psycopg.connect(cluster.dsn()) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'v'"
            " AND relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
        ).fetchall()
    views = {row[0] for row in rows}
    assert {"pg_roles", "pg_settings", "columns"} <= views
    directory = Path(jobs.__file__).parent
    read = set[str]()
    for path in [*directory.glob("*.py"), *directory.glob("sql/*.sql")]:
        for name in re.findall(
            r"\b(?:FROM|JOIN|UPDATE|INTO|ONLY|TABLE)\s+(?:\w+\.)?(\w+)", path.read_text(), re.IGNORECASE
        ):
            read |= {f"{path.name}: {name}"} if name.lower() in views else set()
    assert read == set()


def test_a_statement_may_name_any_number_of_tables(job: clusters.Cluster) -> None:
    """The kernel limits the length of an argument of psql."""
    few, many = "{1259}", "{" + ",".join(map(str, (1259, *range(1_000_000, 1_050_000)))) + "}"
    assert job.run_files("template1", SQL / "contents.sql", tables=many) == (
        job.run_files("template1", SQL / "contents.sql", tables=few)
    )
    assert job.run_each("template1", ["SELECT count(*) FROM unnest(:'tables'::oid[]);"], tables=many) == {}
