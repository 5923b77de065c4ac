"""The finalise job: recover, anonymise, clean and stop an extracted data directory; runs as the image's own user.

Starting Postgres on an uploaded directory is running the uploader's code, so everything here, psql included, stays
inside the sandbox, and nothing it leaves behind is believed: the helper takes its word only for a clean exit.
"""

from __future__ import annotations

import os
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

from draupnir_helper import postgres
from draupnir_helper.jobs import extract, reports
from draupnir_helper.jobs.clusters import Cluster
from draupnir_helper.jobs.reports import JobError, Report, Reporter

SCRIPT = Path("/run/draupnir/image/anonymisation_script.sql")
PRELOAD_LIBRARIES = Path("/run/draupnir/image/shared_preload_libraries")
_DATA = Path(postgres.PGDATA)


def main(reporter: Reporter) -> Report:
    """Take the steps of the brief, in order; any that fails fails the image."""
    major = extract.read_major(_DATA)
    with tempfile.TemporaryDirectory() as directory, as_file(files("draupnir_helper.jobs") / "sql") as sql:
        cluster = Cluster(major, Path(directory))
        reporter.step("recovering")
        with cluster.running(PRELOAD_LIBRARIES.read_text(encoding="ascii").split()):
            admit_all_databases(cluster, sql)
            disarm(cluster, sql)
            reporter.step("running the anonymisation script")
            anonymise(cluster, sql)
            reporter.step("handing everything to the role draupnir")
            disarm(cluster, sql)
            hand_over(cluster, sql)
            reporter.step("vacuuming and analysing")
            forget_statistics(cluster, sql)
            cluster.vacuum()
            reporter.step("stopping")
    return Report(step="finalised", postgres_major=major, size_bytes=normalise(_DATA))


def admit_all_databases(cluster: Cluster, sql: Path) -> None:
    """A database that refuses connections would be neither anonymised nor cleaned."""
    cluster.run_file("template1", sql / "admit.sql")


def disarm(cluster: Cluster, sql: Path) -> None:
    """Drop what ties the copy to production: prepared transactions, subscriptions, passwords for foreign servers."""
    for database in cluster.databases():
        cluster.run_file(database, sql / "disarm.sql")


def anonymise(cluster: Cluster, sql: Path) -> None:
    """Run the operator's script; the first statement that fails, or a transaction left open, fails the image."""
    finished = cluster.run_script(SCRIPT, sql / "after_script.sql")
    if finished.returncode == 0:
        return
    if cluster.ran_out_of_room(finished):
        raise JobError("no_room", reports.NO_ROOM, finished.stderr[-2000:])
    detail = (
        "The anonymisation script failed, so nothing is published; correct it (PATCH /images/ID, or draupnir-client "
        "images update) and finalise again, the upload is kept."
    )
    raise JobError("script_failed", detail, finished.stderr[-2500:])


def hand_over(cluster: Cluster, sql: Path) -> None:
    """Give all objects to the role draupnir, and close every other role."""
    if cluster.superuser == postgres.ROLE:
        detail = "The superuser of the data is called draupnir, the name that instances use; rename it at the source."
        raise JobError("role_conflict", detail)
    cluster.run_file("template1", sql / "roles.sql")
    for database in cluster.databases():
        cluster.run_file(database, sql / "ownership.sql", bootstrap=cluster.superuser)


def forget_statistics(cluster: Cluster, sql: Path) -> None:
    """Delete the planner's samples: ANALYZE keeps those of a table that the script emptied."""
    for database in cluster.databases():
        cluster.run_file(database, sql / "forget.sql")


def normalise(directory: Path) -> int:
    """Open files and directories to the group, so that a snapshot needs one chown; returns the bytes of all files."""
    size_bytes = 0
    for path, directories, names in os.walk(directory):
        for name in directories:
            _open_to_group(Path(path, name), 0o770)
        for name in names:
            if name in {"postmaster.opts", "postmaster.pid"}:
                Path(path, name).unlink()
                continue
            _open_to_group(Path(path, name), 0o660)
            size_bytes += Path(path, name).stat().st_size
    return size_bytes


def _open_to_group(path: Path, mode: int) -> None:
    found = path.lstat()
    # What the extract job wrote belongs to the upload user, and has these modes already.
    if found.st_uid == os.geteuid() and found.st_mode & 0o777 != mode:
        path.chmod(mode, follow_symlinks=True)


if __name__ == "__main__":
    reports.run(main)
