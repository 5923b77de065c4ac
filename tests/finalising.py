"""The finalise job's steps on a running throw-away cluster, without a sandbox and without a clean stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from draupnir_helper import postgres
from draupnir_helper.jobs import changes, clusters, finalise, handover, inspections, residues, surveys
from draupnir_helper.jobs.proofs import Proof
from draupnir_helper.jobs.rows import Rows
from tests.postgres import Cluster, binaries

SQL = Path(finalise.__file__).with_name("sql")
MAJOR = int(binaries().parent.name)
ORDER = {"canaries": [], "keep_residue": False}


@contextmanager
def job_on(cluster: Cluster) -> Iterator[clusters.Cluster]:
    """Yield the cluster as the job asks it."""
    environment = clusters._environment() | {"PGPORT": str(cluster.port)}
    data = mock.patch.object(postgres, "PGDATA", str(cluster.data))
    with data, mock.patch.object(clusters, "_environment", return_value=environment):
        yield clusters.Cluster(MAJOR, cluster.directory)


def finalised(cluster: Cluster, script: Path) -> tuple[dict[int, inspections.Judged], str]:
    """Take the job's steps from the recovery to the stop, and return its verdicts and the default database.

    Afterwards the superuser cannot log in.
    """
    with job_on(cluster) as job:
        rows = Rows(script.parent)
        start = residues.position(job)
        databases = finalise.admit_all_databases(job, rows)
        handover.prepare(job, databases)
        changes.report_databases(job, databases, rows)
        finalise.disarm(job, databases)
        before = surveys.survey(job, databases)
        proof = Proof(job, script.read_text(), ORDER, rows)
        with mock.patch.object(finalise, "SCRIPT", script):
            databases, _, changed = finalise.run_script(job, databases, start, ORDER, proof, rows)
        surveys.refresh(job, databases, before, rows)
        judged, with_data = handover.hand_over(job, databases, rows)
        finalise.clean(job, databases, before.parents, changed, ORDER, rows)
        proof.compare(databases, changed)
        job.run_files("template1", SQL / "close.sql")
        rows.leave()
        return judged, handover.default_database(databases, with_data)
