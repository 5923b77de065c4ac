"""A report always fits what systemd carries, and keeps what tells most."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import example, given
from hypothesis import strategies as st

from draupnir_helper.jobs.reports import JobError, failure_report
from draupnir_helper.notify import escape, unescape
from draupnir_helper.wire import JobReport


@example("na\udcffme", "")  # a file name that is no UTF-8
@given(st.text(max_size=6000), st.text(max_size=9000))
def test_a_failure_fits_a_notification_and_the_contract(detail: str, tail: str) -> None:
    report = failure_report(JobError("script_failed", detail, tail))
    text = escape(report.document())
    assert len(b"STATUS=" + text.encode()) < 4096
    assert "\n" not in text
    assert "\\" not in text, "systemd would take it off"
    assert JobReport.model_validate_json(unescape(text)).error == (report.error or "").encode(errors="replace").decode()


def test_the_end_of_a_long_log_is_what_is_kept() -> None:
    report = failure_report(JobError("recovery_failed", "It failed.", "x" * 9000 + "the cause"))
    assert report.error is not None
    assert report.error.startswith("It failed.\n")
    assert report.error.endswith("the cause")


def test_a_job_does_not_wait_for_pydantic() -> None:
    """Its import takes longer than unpacking a small archive."""
    program = (
        "import draupnir_helper.jobs.extract, draupnir_helper.jobs.finalise, sys; sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
