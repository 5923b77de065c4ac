"""Reports progress and failure of a job through its unit's status, sd_notify(3), within the size limit of a status.

Local users can read the status, and operators the journal. A text that may quote raw rows goes into a file in the work
directory, which only uploaders and admins can read.
Must not import wire or dataclasses: the import of pydantic, or inspect, would take most of the time of a small job.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from draupnir_helper import postgres
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.notify import escape, notify

INCOMING = ".incoming"  # the extract job unpacks into this directory
PRIVATE_NAME = ".draupnir-error"
PRIVATE_MAX_BYTES = 1024 * 1024
_STATUS_BYTES = 3800  # systemd reads 4096 bytes of a notification
_INTERVAL_S = 0.5

log = logging.getLogger(__name__)


class Report(NamedTuple):
    """The report of a job; the helper reads it as wire.JobReport, which bounds each field."""

    step: str
    done_bytes: int | None = None
    total_bytes: int | None = None
    postgres_major: int | None = None
    size_bytes: int | None = None
    parameters: dict[str, str] | None = None
    refused_parameters: list[str] | None = None
    trigger_tables: list[str] | None = None
    preload_libraries: list[str] | None = None
    superuser: str | None = None
    database: str | None = None
    proved: bool | None = None
    finished: bool | None = None
    error_code: str | None = None
    error: str | None = None

    def document(self) -> str:
        """Return the fields that are set, as JSON."""
        fields = {name: value for name, value in self._asdict().items() if value is not None}
        # File names may contain bytes that are not UTF-8.
        return json.dumps(fields, ensure_ascii=False).encode(errors="replace").decode()


class JobError(Exception):
    """The reason why the job fails: a stable code, a public sentence, and a private text.

    The sentence must not contain output of Postgres or psql, because their messages quote rows.
    """

    def __init__(self, code: str, detail: str, private: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.private = private


NO_ROOM = (
    "The data disk is full, or the image needs more than max_image_bytes. If `draupnir doctor` reports a full disk,"
    " destroy instances or images. Otherwise set a larger max_image_bytes in /etc/draupnir/config.toml. Then finalise"
    " again."
)


_MORE = "Finalise again. If it fails again, `draupnir-client images show ID` shows the full error."


class Reporter:
    """Sets the unit's status, progress at most twice a second; collects the rows of the image's report."""

    def __init__(self, directory: Path) -> None:
        self.rows = Rows(directory)
        self._last_s = 0.0

    def step(self, activity: str) -> None:
        """Report the current step, as a participle: "recovering"."""
        log.info("%s", activity)
        send(Report(step=activity))

    def progress(self, activity: str, done_bytes: int, total_bytes: int) -> None:
        """Report how much is done; cheap to call often."""
        now_s = time.monotonic()
        if now_s - self._last_s >= _INTERVAL_S:
            self._last_s = now_s
            send(Report(step=activity, done_bytes=done_bytes, total_bytes=total_bytes))


def send(report: Report) -> None:
    """Make the report the unit's status."""
    notify(STATUS=_status(report))


def _status(report: Report) -> str:
    return escape(report.document())


def run(job: Callable[[Reporter], Report]) -> None:
    """Run the job, report its result or its failure, and exit accordingly."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    reporter = Reporter(Path(postgres.PGDATA))
    try:
        finished = job(reporter)
    except Exception as error:  # noqa: BLE001 - reported, and the end of the job
        reason = _reason(error)
        if reason.code == "no_room":
            _make_room(Path(postgres.PGDATA))
        reporter.rows.leave()
        _fail(reason)
    reporter.rows.leave()
    send(finished._replace(finished=True))


def _make_room(directory: Path) -> None:
    """Delete a part of the failed work, which nobody needs any more, so that report and error can be written."""
    for name in ("pg_wal", INCOMING):
        shutil.rmtree(directory / name, ignore_errors=True)
    os.sync()  # btrfs counts deleted extents until it commits


def _reason(error: Exception) -> JobError:
    if isinstance(error, JobError):
        return error
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return JobError("no_room", NO_ROOM, traceback.format_exc())
    if isinstance(error, OSError):
        why = os.strerror(error.errno) if error.errno else "an input or output error"
        return JobError("job_failed", f"The job could not continue: {why}. {_MORE}", traceback.format_exc())
    detail = f"The job failed with an unexpected error ({type(error).__name__}). {_MORE}"
    return JobError("job_failed", detail, traceback.format_exc())


def _fail(error: JobError) -> NoReturn:
    log.error("%s: %s", error.code, error.detail)
    leave_private(Path(postgres.PGDATA), error.private)
    send(failure_report(error))
    sys.exit(1)


def leave_private(directory: Path, text: str) -> None:
    """Write the end of the private text to the file from which the helper reads it."""
    path = directory / PRIVATE_NAME
    # If the disk is full, or if code of the data created the file, the failure is reported without this text.
    with suppress(OSError):
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o660)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode(errors="replace")[-PRIVATE_MAX_BYTES:])


def failure_report(error: JobError) -> Report:
    """Return the failure as a report that fits into a notification."""
    detail = error.detail[:2000]
    while True:
        report = Report(step="failed", error_code=error.code, error=detail)
        excess = len(_status(report).encode()) - _STATUS_BYTES
        if excess <= 0:
            return report
        detail = detail[: max(0, len(detail) - excess)]
