"""Canaries are found in any file, whatever bytes surround them, and the message names places and no value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from draupnir_helper.jobs import canaries
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows

CANARY = "jane-ü@corp.example"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    for place in ("base/5", "global", "pg_wal", "pg_tblspc/16400/PG_17_1/5"):
        (directory / place).mkdir(parents=True)
    (directory / "base/5/16384").write_bytes(b"\0\1\n" * 1000)
    return directory


def found(data: Path, *values: str) -> str:
    """Return the message of a hit, or an empty text."""
    rows = Rows(data)
    names = {(5, 16384): "public.users in database my_db", (5, 16390): "public.moved in database my_db"}
    try:
        canaries.require_absent(data, data.parent, values, names, rows)
    except JobError as error:
        return f"{error.code}: {error.detail}"
    assert [row.code for row in rows] == (["canaries_absent"] if values else [])
    return ""


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("base/5/16384", "public.users in database my_db (base/5/16384)"),
        ("base/5/16384.1", "public.users in database my_db (base/5/16384.1)"),
        ("pg_tblspc/16400/PG_17_1/5/16390", "public.moved in database my_db (pg_tblspc"),
        ("base/5/99999", "in base/5/99999"),
        ("pg_wal/000000010000000000000001", "in pg_wal/000000010000000000000001"),
    ],
)
def test_the_place_of_a_hit_is_named_and_the_value_is_not(data: Path, place: str, named: str) -> None:
    with (data / place).open("ab") as file:
        file.write(b"\xff\0" + CANARY.encode() + b"\0\xfe")
    detail = found(data, "another one", CANARY)
    assert detail.startswith("canary_found: ")
    assert named in detail
    assert "jane" not in detail


def test_an_absent_canary_is_reported_and_none_is_not_searched_for(data: Path) -> None:
    assert found(data, CANARY) == ""
    assert found(data) == ""


def test_the_patterns_do_not_stay(data: Path) -> None:
    found(data, CANARY)
    assert [path.name for path in data.parent.iterdir()] == ["data"]


def test_a_gigabyte_of_zeros_takes_no_memory(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(data / "base/5/16384", 1 << 30)
    with (data / "base/5/16384").open("ab") as file:
        file.write(CANARY.encode())
    limited = tmp_path / "grep"
    limited.write_text(f'#!/bin/sh\nulimit -v 262144; exec {canaries.GREP} "$@"\n')
    limited.chmod(0o700)
    monkeypatch.setattr(canaries, "GREP", str(limited))
    assert "public.users" in found(data, CANARY)
