"""The extract job: turns a sealed upload of any form into a clean data directory; runs as the upload user."""

from __future__ import annotations

import shutil
from pathlib import Path

from draupnir_helper import postgres
from draupnir_helper.jobs import backup_labels, configurations, preloads, reports, uploads
from draupnir_helper.jobs.data_directories import read_major
from draupnir_helper.jobs.known_files import prune
from draupnir_helper.jobs.reports import Report, Reporter

SEAL = Path("/srv/seal")
TARGET = Path(postgres.PGDATA)


def main(reporter: Reporter) -> Report:
    """Unpack or copy the upload; find, check and prune the data directory; report its major."""
    incoming = TARGET / reports.INCOMING
    incoming.mkdir()
    uploads.fill(SEAL, incoming, lambda done, total: reporter.progress("extracting", done, total), reporter.rows)
    directory = uploads.find_data_directory(incoming, reporter.rows)
    major = read_major(directory)
    backup_labels.check(directory, major, reporter)
    # Debian keeps postgresql.conf in /etc, so it may be uploaded beside an archive.
    directories = (directory, SEAL)
    found = configurations.of_source(directories)
    configurations.report_unknown(directories, found, reporter.rows)
    settings = configurations.carried_over(found, reporter.rows)
    prune(directory, major, reporter.rows)
    # The file has other settings of the old server, such as commands, hosts and sizes.
    libraries = preloads.listed(found.get(configurations.PRELOAD, ""))
    kept = {configurations.PRELOAD: ",".join(libraries)} if libraries else {}
    (directory / "postgresql.auto.conf").write_text(postgres.text(kept), encoding="utf-8")
    lift(directory, TARGET)
    shutil.rmtree(incoming)
    return Report(step="extracted", postgres_major=major, parameters=settings)


def lift(directory: Path, target: Path) -> None:
    """Move the content of the pruned directory up to the target, which is otherwise empty, so names cannot clash."""
    for path in list(directory.iterdir()):
        path.rename(target / path.name)


if __name__ == "__main__":
    reports.run(main)
