"""How a job speaks: progress and failure through its unit's status, sd_notify(3), bounded by what that carries."""

from __future__ import annotations

import errno
import logging
import sys
import time
from collections.abc import Callable

from draupnir_helper.notify import escape, notify
from draupnir_helper.wire import JobReport

_STATUS_BYTES = 3800  # systemd reads 4096 bytes of a notification
_INTERVAL_S = 0.5

log = logging.getLogger(__name__)


class JobError(Exception):
    """Why the job cannot succeed: a stable code, a sentence for people, and the end of a log where one tells more."""

    def __init__(self, code: str, detail: str, log_tail: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.log_tail = log_tail


NO_ROOM = "The data disk is full; destroy instances or images, or give it more room, and finalise again."


class Reporter:
    """Tells the unit's status, progress not more than twice a second."""

    def __init__(self) -> None:
        self._last_s = 0.0

    def step(self, activity: str) -> None:
        """What the job does from now on, as a participle: "recovering"."""
        log.info("%s", activity)
        send(JobReport(step=activity))

    def progress(self, activity: str, done_bytes: int, total_bytes: int) -> None:
        """How far it is; cheap to call often."""
        now_s = time.monotonic()
        if now_s - self._last_s >= _INTERVAL_S:
            self._last_s = now_s
            send(JobReport(step=activity, done_bytes=done_bytes, total_bytes=total_bytes))


def send(report: JobReport) -> None:
    """Make the report the unit's status."""
    notify(STATUS=_status(report))


def _status(report: JobReport) -> str:
    return escape(report.model_dump_json(exclude_none=True))


def run(job: Callable[[Reporter], JobReport]) -> None:
    """Run the job, report what it returns or why it failed, and exit accordingly."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    try:
        send(job(Reporter()))
    except JobError as error:
        _fail(error)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            _fail(JobError("no_room", NO_ROOM))
        log.exception("the job failed")
        _fail(JobError("job_failed", f"The server could not go on: {error.strerror or error}."))
    except Exception:
        log.exception("the job failed")
        _fail(JobError("job_failed", "The job failed in a way nobody foresaw; its journal on the server has more."))


def _fail(error: JobError) -> None:
    log.error("%s: %s\n%s", error.code, error.detail, error.log_tail)
    send(failure_report(error))
    sys.exit(1)


def failure_report(error: JobError) -> JobReport:
    """The failure as a report that fits a notification: of the log's tail, the end is what is kept."""
    tail = error.log_tail.strip()
    detail = error.detail[:2000]
    while True:
        text = f"{detail}\n{tail}" if tail else detail
        report = JobReport(step="failed", error_code=error.code, error=text[:4000])
        excess = len(_status(report).encode()) - _STATUS_BYTES
        if excess <= 0:
            return report
        if tail:
            tail = tail[excess:]
        else:
            detail = detail[: max(0, len(detail) - excess)]
