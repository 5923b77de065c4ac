"""A report always fits what systemd carries, and keeps what tells most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from draupnir_helper.jobs.reports import JobError, failure_report
from draupnir_helper.notify import escape, unescape
from draupnir_helper.wire import JobReport


@given(st.text(max_size=6000), st.text(max_size=9000))
def test_a_failure_fits_a_notification_and_the_contract(detail: str, tail: str) -> None:
    report = failure_report(JobError("script_failed", detail, tail))
    text = escape(report.model_dump_json(exclude_none=True))
    assert len(b"STATUS=" + text.encode()) < 4096
    assert "\n" not in text
    assert "\\" not in text, "systemd would take it off"
    assert JobReport.model_validate_json(unescape(text)) == report


def test_the_end_of_a_long_log_is_what_is_kept() -> None:
    report = failure_report(JobError("recovery_failed", "It failed.", "x" * 9000 + "the cause"))
    assert report.error is not None
    assert report.error.startswith("It failed.\n")
    assert report.error.endswith("the cause")
