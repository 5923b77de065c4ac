"""A report always fits into a notification, and keeps its most important part."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from draupnir_helper import postgres
from draupnir_helper.jobs import reports
from draupnir_helper.jobs.reports import PRIVATE_MAX_BYTES, PRIVATE_NAME, JobError, failure_report, leave_private
from draupnir_helper.notify import escape, unescape
from draupnir_helper.wire import JobReport


@example("na\udcffme")  # a file name that is not UTF-8
@given(st.text(max_size=6000))
def test_a_failure_fits_a_notification_and_the_contract(detail: str) -> None:
    report = failure_report(JobError("script_failed", detail, "private"))
    text = escape(report.document())
    assert len(b"STATUS=" + text.encode()) < 4096
    assert "\n" not in text
    assert "\\" not in text, "systemd would take it off"
    assert JobReport.model_validate_json(unescape(text)).error == (report.error or "").encode(errors="replace").decode()


def test_a_report_has_nothing_of_the_private_text() -> None:
    assert "raw row" not in failure_report(JobError("script_failed", "It failed.", "raw row")).document()


def test_the_end_of_a_long_private_text_is_kept_in_a_file_of_the_group(tmp_path: Path) -> None:
    leave_private(tmp_path, "x" * 2 * PRIVATE_MAX_BYTES + "the cause")
    path = tmp_path / PRIVATE_NAME
    assert path.stat().st_size == PRIVATE_MAX_BYTES
    assert path.read_text().endswith("the cause")
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_the_private_text_is_written_through_no_link_and_replaces_what_the_data_left(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("untouched")
    (tmp_path / PRIVATE_NAME).symlink_to(target)
    leave_private(tmp_path, "raw row")
    assert target.read_text() == "untouched"
    assert (tmp_path / PRIVATE_NAME).read_text() == "raw row"


def test_a_directory_in_the_place_of_the_private_text_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / PRIVATE_NAME).mkdir()
    leave_private(tmp_path, "raw row")


FAILURES = {
    "a job's own": (JobError("script_failed", "It failed.", "raw row"), "script_failed"),
    "unexpected": (ValueError("raw row"), "job_failed"),
    "of the system": (OSError(5, "raw row", "raw row"), "job_failed"),
    "without room": (OSError(28, "raw row"), "no_room"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_neither_the_journal_nor_the_status_gets_the_private_text(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    error, code = FAILURES[name]
    sent: list[str] = []
    monkeypatch.setattr(reports, "notify", lambda **fields: sent.extend(fields.values()))
    monkeypatch.setattr(postgres, "PGDATA", str(tmp_path))

    def job(_reporter: reports.Reporter) -> reports.Report:
        raise error

    with pytest.raises(SystemExit):
        reports.run(job)
    assert code in sent[-1]
    assert "raw row" not in "".join(sent) + "".join(capfd.readouterr())
    assert "raw row" in (tmp_path / PRIVATE_NAME).read_text()


def test_a_job_does_not_wait_for_pydantic() -> None:
    """The import would take longer than unpacking a small archive."""
    program = (
        "import draupnir_helper.jobs.extract, draupnir_helper.jobs.finalise, sys; sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
