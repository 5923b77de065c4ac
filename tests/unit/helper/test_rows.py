"""Laws of report rows: they survive from job to job, are bounded, and no file of the data can replace them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from draupnir_helper.jobs.rows import MAX_BYTES, MAX_ROWS, NAME, Rows


def rows_left(directory: Path) -> list[dict[str, str]]:
    found = json.loads((directory / NAME).read_bytes())
    assert isinstance(found, list)
    return found


def test_the_next_job_adds_to_the_rows_of_the_last(tmp_path: Path) -> None:
    first = Rows(tmp_path)
    first.add("file_dropped", "one", object="a")
    first.leave()
    second = Rows(tmp_path)
    second.add("file_dropped", "one", object="a")
    second.add("file_dropped", "two", database="my_db", object="b", remedy="none needed")
    second.leave()
    assert [row["object"] for row in rows_left(tmp_path)] == ["a", "b"]
    assert rows_left(tmp_path)[1] == {
        "code": "file_dropped", "database": "my_db", "object": "b", "detail": "two", "remedy": "none needed",
    }  # fmt: skip


def test_the_leading_row_is_the_first(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    for number in range(MAX_ROWS):
        rows.add("file_dropped", "one", object=str(number))
    for _ in range(2):
        rows.lead("residue_kept", "kept", remedy="none needed")
    rows.leave()
    found = rows_left(tmp_path)
    assert [row["code"] for row in found[:2]] == ["residue_kept", "file_dropped"]
    assert [row["code"] for row in found].count("residue_kept") == 1


def test_bytes_that_are_not_utf_8_stay_readable(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    rows.add("file_dropped", "It is gone.", database=b"M\xfcller".decode(errors="surrogateescape"), object="M\xfcller")
    rows.leave()
    (row,) = rows_left(tmp_path)
    assert (row["database"], row["object"]) == (r"M\xfcller", "Müller")


@pytest.mark.parametrize("text", ["x" * 100_000, "\udcff" * 400, "\N{SNOWMAN}" * 500])
def test_a_report_is_bounded(tmp_path: Path, text: str) -> None:
    rows = Rows(tmp_path)
    for number in range(MAX_ROWS + 10):
        rows.add("file_dropped", text, object=f"{number}{text}", remedy=text)
    rows.leave()
    assert 0 < len(rows_left(tmp_path)) <= MAX_ROWS
    assert (tmp_path / NAME).stat().st_size <= MAX_BYTES


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"other": 1}]', "\0"])
def test_a_file_that_is_not_a_report_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    assert list(Rows(tmp_path)) == []


def test_a_link_of_the_data_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    Rows(tmp_path).leave()
    assert not (tmp_path / "elsewhere").exists()
    assert rows_left(tmp_path) == []


def test_an_unknown_code_is_a_mistake_of_ours(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        Rows(tmp_path).add("surprise", "")
