"""The finalise job: recover, anonymise, clean and stop an extracted data directory; runs as the image's own user.

To start Postgres on an uploaded directory is to run the uploader's code. So the whole job, psql included, stays in the
sandbox. The helper trusts one result only, that the job is done, and only after a clean exit.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from draupnir_helper import postgres, walls
from draupnir_helper.jobs import (
    changes,
    collations,
    configurations,
    handover,
    inspections,
    leftovers,
    preflight,
    reports,
    residues,
    rooms,
    scripts,
    surveys,
    triggers,
    vacuum,
)
from draupnir_helper.jobs.clusters import Cluster, array
from draupnir_helper.jobs.data_directories import read_major
from draupnir_helper.jobs.preloads import Preloads
from draupnir_helper.jobs.proofs import Proof
from draupnir_helper.jobs.reports import Report, Reporter
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.sessions import in_each

SCRIPT = Path("/run/draupnir/image/anonymisation_script.sql")
ORDER = Path("/run/draupnir/image/order.json")
_DATA = Path(postgres.PGDATA)
_DIRECTORY = Path("/tmp/cluster")  # noqa: S108 - the sandbox has a /tmp of its own, empty when the job starts
_SQL = Path(__file__).with_name("sql")
_CLOSE = _SQL / "close.sql"
_ADMIT = (_SQL / "catalog_rules.sql", _SQL / "admit.sql")
# These files change how a server starts. A finished job does not leave the private text of a failure, either.
_WRITTEN_BY_DATA = ("standby.signal", "recovery.signal", "backup_label", "tablespace_map", reports.PRIVATE_NAME)


class Job:
    """One finalise: its server, what it needs, and the results of its steps."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter, self.rows = reporter, reporter.rows
        self.major = read_major(_DATA)
        _DIRECTORY.mkdir(mode=0o700)
        self.order = json.loads(ORDER.read_text(encoding="utf-8"))
        self.cluster = Cluster(self.major, _DIRECTORY)
        self.preloads = Preloads(self.major, _DATA, self.order)
        self.proof = Proof(self.cluster, SCRIPT.read_text(encoding="utf-8"), self.order, self.rows)
        self.judged: Mapping[int, inspections.Judged] = {}

    def run(self) -> Report:
        """Run the steps in order; a step that fails makes the image fail."""
        self.reporter.step("recovering")
        with self.cluster.running(self.preloads.required(self.rows), self.rows):
            start = residues.position(self.cluster)
            databases = admit_all_databases(self.cluster, self.rows)
            check_server(self.cluster, databases, self.preloads, self.order, self.rows)
            handover.prepare(self.cluster, databases)
            changes.report_databases(self.cluster, databases, self.rows)
            disarm(self.cluster, databases)
            begin_sync()
            refused = set_script(self.cluster, self.order, self.reporter)
            databases, written, with_data = self._mask(databases, start)
            self.reporter.step("stopping")
        self._check_files()
        self.reporter.step("searching the files for removed values")
        self.proof.search(self._running_again)
        settle(_DATA, self.cluster.sizes.of_instances(self.rows))
        superuser = self.cluster.superuser
        return Report(
            step="finalised",
            postgres_major=self.major,
            size_bytes=normalise(_DATA),
            trigger_tables=triggers.tables(written, SCRIPT.read_text(encoding="utf-8")),
            preload_libraries=self.preloads.allowed,
            refused_parameters=refused,
            superuser=superuser if handover.in_utf8(superuser) else None,
            database=handover.default_database(databases, with_data),
            proved=not self.order["keep_residue"],
        )

    def _mask(self, databases: dict[str, int], start: residues.Position) -> tuple[dict[str, int], list[str], list[str]]:
        """Run the script, and clean up; return the databases, the tables written to, and the databases with data."""
        before = surveys.survey(self.cluster, databases)
        collated = collations.Collations(self.cluster, self.reporter)
        collated.rebuild(before.dependent)
        self.reporter.step("running the anonymisation script")
        databases, written, changed = run_script(self.cluster, databases, start, self.order, self.proof, self.rows)
        collated.retry(databases)
        self.reporter.step("refreshing materialized views")
        surveys.refresh(self.cluster, databases, before, self.rows)
        self.reporter.step("handing over what the superuser owns")
        self.judged, with_data = handover.hand_over(self.cluster, databases, self.rows)
        self.reporter.step("vacuuming and analysing")
        clean(self.cluster, databases, before.parents, changed, self.order, self.rows)
        self.proof.compare(databases, changed)
        self.cluster.run_files("template1", _CLOSE)
        return databases, written, with_data

    def _check_files(self) -> None:
        inspections.inspect(_DATA, self.major, self.judged)
        leftovers.remove(_DATA, self.major, self.rows)

    @contextmanager
    def _running_again(self) -> Iterator[None]:
        with self.cluster.running(self.preloads.libraries, self.rows):
            # template0 accepts no connections any more.
            self.cluster.run_files("template1", *_ADMIT)
            yield
            self.cluster.run_files("template1", _CLOSE)
        self._check_files()


def main(reporter: Reporter) -> Report:
    """Run the job."""
    return Job(reporter).run()


def run_script(
    cluster: Cluster,
    databases: Mapping[str, int],
    start: residues.Position,
    order: Mapping[str, Any],
    proof: Proof,
    rows: Rows,
) -> tuple[dict[str, int], list[str], dict[str, residues.Changed]]:
    """Run the script; return the databases that exist now, the tables written to, and the tables with changed files."""
    files = residues.survey(cluster, databases, start)
    proof.sample(databases)
    scripts.run(cluster, databases, SCRIPT)
    # The script may have created, dropped or closed databases.
    now = admit_all_databases(cluster, rows)
    written = disarm(cluster, now)
    if order["keep_residue"]:
        return now, written, residues.keep(now, rows)
    return now, written, residues.find_changed(cluster, now, files)


def clean(
    cluster: Cluster,
    databases: Mapping[str, int],
    parents: Mapping[int, str],
    changed: Mapping[str, residues.Changed],
    order: Mapping[str, Any],
    rows: Rows,
) -> None:
    """Remove dead rows, and rewrite what the script changed."""
    tables = {database: found.tables for database, found in changed.items()}
    for database, oids in tables.items():
        if oids:
            detail = f"{len(oids)} tables were rewritten, because the script changed them."
            rows.add("tables_rewritten", detail, database=database)
    vacuum.Vacuum(cluster, rows).run(databases, parents, tables)
    if not order["keep_residue"]:
        residues.rewrite_catalogs(cluster, changed)


def begin_sync() -> None:
    """Start to write the extracted files to the disk, because publishing has to wait for that.

    Postgres writes its caches at the first connection to each database, and they would queue up behind the sync. So
    connect first. os.sync covers the whole machine, because a sync of one filesystem is an ioctl, which is blocked.
    """
    threading.Thread(target=os.sync, daemon=True).start()


def set_script(cluster: Cluster, order: Mapping[str, Any], reporter: Reporter) -> list[str]:
    """Give the script the settings of the source; return those that the server refuses."""
    refused = configurations.refused(cluster, order["carried_over"], order["given"], reporter.rows)
    wanted = {**order["carried_over"], **order["given"]}
    cluster.script_settings = configurations.of_script({n: v for n, v in wanted.items() if n not in refused})
    return refused


def admit_all_databases(cluster: Cluster, rows: Rows) -> dict[str, int]:
    """Open all databases, so that each is anonymised and cleaned; return their oids by name."""
    changes.report_cluster(cluster, rows)
    lines = cluster.run_files("template1", *_ADMIT)
    # A name may hold the end of a line.
    return {json.loads(name): int(oid) for oid, _, name in (line.partition("|") for line in lines)}


def check_server(
    cluster: Cluster, databases: Iterable[str], preloads: Preloads, order: Mapping[str, Any], rows: Rows
) -> None:
    """Report everything that the data need and this server lacks. Preload their libraries. Raises preflight_failed."""
    needs = preflight.read(cluster.run_files("template1", _SQL / "databases.sql"))
    # Nobody can connect to a database whose locale is missing.
    known = [*preflight.problems(cluster.major, _DATA, needs, ())]
    closed = {row.database for row in known if row.code == "locale_missing"}
    within = [database for database in databases if database not in closed]
    answers = in_each(within, lambda each: cluster.run_files(each, _SQL / "preflight.sql"))
    needs = [need for database, lines in zip(within, answers, strict=True) for need in preflight.read(lines, database)]
    is_restarted = preloads.add(needs)
    known += preflight.problems(cluster.major, _DATA, needs, preloads.libraries)
    known += rooms.problems(_DATA, order["left_bytes"])
    preflight.refuse(known, rows, require_extensions=order["require_extensions"])
    preloads.report(rows)
    if is_restarted:
        cluster.restart(preloads.libraries)


def disarm(cluster: Cluster, databases: Iterable[str]) -> list[str]:
    """Remove links to production, and code that runs without a call. Return the tables written to since the last call.

    Links and code are prepared transactions, subscriptions, passwords for foreign servers, event triggers, and settings
    of roles and databases that would override the command line. Before Postgres 15 no tables are returned, because
    its statistics need a network.
    """
    own = _SQL / "catalog_rules.sql"
    cluster.run_files("template1", own, _SQL / "settings.sql", names=array(walls.names()))
    files = [_SQL / "written.sql", own, _SQL / "disarm.sql"]
    written = in_each(databases, lambda database: cluster.run_files(database, *files))
    return [line for lines in written for line in lines if line]


def settle(directory: Path, settings: Mapping[str, str]) -> None:
    """Replace the configuration after the server has stopped; code of the data may have changed it."""
    for name in ("postgresql.auto.conf", *_WRITTEN_BY_DATA):
        (directory / name).unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(directory / "postgresql.auto.conf", flags, 0o660), "w", encoding="utf-8") as file:
        file.write(postgres.text(settings))


def normalise(directory: Path) -> int:
    """Open files and directories to the group, so that a snapshot needs one chown; return the bytes of all files."""
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
    # Files of the extract job belong to the upload user, and have these modes already.
    if found.st_uid == os.geteuid() and found.st_mode & 0o777 != mode:
        path.chmod(mode, follow_symlinks=True)


if __name__ == "__main__":
    reports.run(main)
