"""Laws of texts of jobs: untrusted code writes the file, so only a regular file is read, up to a mebibyte."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from draupnir_helper import job_texts, subvolumes
from draupnir_helper.jobs.reports import PRIVATE_NAME
from draupnir_helper.layout import Place


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    for place in Place:
        (tmp_path / place / "7").mkdir(parents=True)
    (tmp_path / Place.IMAGES / "7").rmdir()  # it is not published yet
    return tmp_path


@pytest.fixture
def root(disk: Path) -> Iterator[int]:
    descriptor = os.open(disk, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def left(disk: Path) -> Path:
    return disk / Place.WORK / "7" / PRIVATE_NAME


def test_texts_of_a_job_are_readable_by_root_only_until_they_are_removed(disk: Path, root: int) -> None:
    left(disk).write_bytes(b"Failing row contains (\xff).")
    job_texts.keep(root, job_texts.ERROR, 7)
    assert job_texts.read(root, job_texts.ERROR, 7) == "Failing row contains (\N{REPLACEMENT CHARACTER})."
    (kept,) = (path for path in (disk / Place.UPLOADS).iterdir() if path.name != "7")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert subvolumes.ids(root, Place.UPLOADS) == ([7], [])
    job_texts.remove(root, job_texts.ERROR, 7)
    assert job_texts.read(root, job_texts.ERROR, 7) is None


def test_a_failure_without_a_text_removes_the_earlier_text(disk: Path, root: int) -> None:
    left(disk).write_text("first")
    job_texts.keep(root, job_texts.ERROR, 7)
    left(disk).unlink()
    job_texts.keep(root, job_texts.ERROR, 7)
    assert job_texts.read(root, job_texts.ERROR, 7) is None


def test_without_an_upload_no_error_text_is_saved(disk: Path, root: int) -> None:
    left(disk).write_text("first")
    (disk / Place.UPLOADS / "7").rmdir()
    job_texts.keep(root, job_texts.ERROR, 7)
    assert job_texts.read(root, job_texts.ERROR, 7) is None


def test_at_most_a_mebibyte_is_saved(disk: Path, root: int) -> None:
    left(disk).write_bytes(b"x" * (job_texts.MAX_BYTES + 1))
    job_texts.keep(root, job_texts.ERROR, 7)
    assert len(job_texts.read(root, job_texts.ERROR, 7) or "") == job_texts.MAX_BYTES


@pytest.mark.parametrize("place", ["link", "pipe", "directory"])
def test_only_a_regular_file_is_read(disk: Path, root: int, tmp_path: Path, place: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of the machine")
    match place:
        case "link":
            left(disk).symlink_to(secret)
        case "pipe":
            os.mkfifo(left(disk))
        case "directory":
            left(disk).mkdir()
    job_texts.keep(root, job_texts.ERROR, 7)
    assert job_texts.read(root, job_texts.ERROR, 7) is None


def test_a_work_directory_that_is_a_link_is_not_followed(disk: Path, root: int, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / PRIVATE_NAME).write_text("a secret of the machine")
    (disk / Place.WORK / "7").rmdir()
    (disk / Place.WORK / "7").symlink_to(tmp_path / "elsewhere")
    job_texts.keep(root, job_texts.ERROR, 7)
    assert job_texts.read(root, job_texts.ERROR, 7) is None


def test_a_kept_report_leaves_the_work_directory_and_survives_a_second_attempt(disk: Path, root: int) -> None:
    report = disk / Place.WORK / "7" / job_texts.REPORT.name
    report.write_text("[]")
    for _ in range(2):
        job_texts.keep(root, job_texts.REPORT, 7)
        job_texts.remove_from_work(root, job_texts.REPORT, 7)
        assert not report.exists()
        assert job_texts.read(root, job_texts.REPORT, 7) == "[]"


def test_the_report_of_a_published_image_is_not_replaced_or_removed(disk: Path, root: int) -> None:
    report = disk / Place.WORK / "7" / job_texts.REPORT.name
    report.write_text("[]")
    job_texts.keep(root, job_texts.REPORT, 7)
    (disk / Place.IMAGES / "7").mkdir()
    report.write_text('[{"code": "forged"}]')
    job_texts.keep(root, job_texts.REPORT, 7)
    job_texts.remove(root, job_texts.REPORT, 7)
    assert job_texts.read(root, job_texts.REPORT, 7) == "[]"


def test_a_directory_in_place_of_a_report_hinders_nothing(disk: Path, root: int) -> None:
    (disk / Place.WORK / "7" / job_texts.REPORT.name).mkdir()
    job_texts.keep(root, job_texts.REPORT, 7)
    job_texts.remove_from_work(root, job_texts.REPORT, 7)
    assert job_texts.read(root, job_texts.REPORT, 7) is None
