"""Values are found in any file, whatever bytes they have and surround them; messages name places and no value."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from draupnir_helper.jobs import canaries, needles, searches
from draupnir_helper.jobs.relations import Relation
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows

CANARY = "jane-ü@corp.example"
NAMED = {
    (5, 16384): Relation("my_db", "public.users", 16384),
    (5, 16390): Relation("my_db", "public.moved", 16390),
    (0, 1262): Relation("my_db", "pg_database", 1262),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    for place in ("base/5", "global", "pg_wal", "pg_tblspc/16400/PG_17_1/5"):
        (directory / place).mkdir(parents=True)
    (directory / "base/5/16384").write_bytes(b"\0\1\n" * 1000)
    (directory / "base/5/16385").touch()
    return directory


def found(data: Path, *values: bytes) -> set[tuple[bytes, str]]:
    return {(hit.value, hit.path) for hit in searches.search(data, data.parent, values)}


def canary_error(data: Path, *values: str) -> str:
    """Return the message of a hit, or an empty text."""
    rows = Rows(data)
    encoded = [value.encode() for value in values]
    try:
        canaries.require_absent(encoded, sorted({path for _, path in found(data, *encoded)}), NAMED, rows)
    except JobError as error:
        return f"{error.code}: {error.detail}"
    assert [row.code for row in rows] == (["canaries_absent"] if values else [])
    return ""


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("base/5/16384", "public.users in database my_db (base/5/16384)"),
        ("base/5/16384.1", "public.users in database my_db (base/5/16384.1)"),
        ("base/5/16384_vm", "public.users in database my_db (base/5/16384_vm)"),
        ("pg_tblspc/16400/PG_17_1/5/16390", "public.moved in database my_db (pg_tblspc"),
        ("global/1262", "pg_database in database my_db (global/1262)"),
        ("base/5/99999", "in base/5/99999"),
        ("pg_wal/000000010000000000000001", "in pg_wal/000000010000000000000001"),
    ],
)
def test_the_place_of_a_canary_is_named_and_the_value_is_not(data: Path, place: str, named: str) -> None:
    with (data / place).open("ab") as file:
        file.write(b"\xff\0" + CANARY.encode() + b"\0\xfe")
    detail = canary_error(data, "another one", CANARY)
    assert detail.startswith("canary_found: ")
    assert named in detail
    assert "jane" not in detail


def test_an_absent_canary_is_reported_and_none_is_not_searched_for(data: Path) -> None:
    assert canary_error(data, CANARY) == ""
    assert canary_error(data) == ""


def test_the_patterns_do_not_stay(data: Path) -> None:
    assert found(data, CANARY.encode(), b"\xff" * 4 + b"\xfe\xfd\xfc\xfb\xfa\xf9") == set()
    assert [path.name for path in data.parent.iterdir()] == ["data"]


@pytest.mark.parametrize(
    "value",
    [
        b"x",
        b"two words",
        "Käthe Müller, Straße 7".encode(),
        "Käthe Müller, Straße 7".encode("latin-1"),
        bytes(range(0xF0, 0x100)),
        bytes(range(256)),
        b"line one of the note\nline two, which is longer\n",
        b"\0\0\0\0nul 1\0 and \0\0",
        b"(regular|expression)+.*[a-z]{3}\\x41",
        hashlib.sha256(b"long").hexdigest().encode() * 20,
    ],
)
def test_any_bytes_are_found_whole(data: Path, value: bytes) -> None:
    others = [hashlib.md5(str(number).encode(), usedforsecurity=False).digest() for number in range(300)]
    (data / "base/5/16385").write_bytes(b"\xff\n\0" + value + b"\0\xff")
    assert found(data, *others, value) == {(value, "base/5/16385")}
    if len(value) > 1:
        (data / "base/5/16385").write_bytes(b"\xff\n\0" + value[:-1] + b"\x7f#" + value[1:])
        assert found(data, *others, value) == set()


@pytest.mark.parametrize("value", [b"1\n2\n3\n4\n5\n6\n7\n8\n9\n", b"\xff\n" * 20, b"aaaaaaaaaaaa", b""])
def test_values_without_a_distinct_piece_have_no_window(value: bytes) -> None:
    assert needles.window(value) == b""


def test_values_with_the_same_end_are_told_apart(data: Path) -> None:
    end = "/a/long/path/that/is/the/same/for/all/of/the/values/of/a/column"
    (data / "base/5/16385").write_text(f"two{end}")
    assert found(data, *(f"{name}{end}".encode() for name in ("one", "two", "three"))) == {
        (f"two{end}".encode(), "base/5/16385")
    }


def test_of_values_that_begin_alike_the_longest_is_found(data: Path) -> None:
    values = [f"Jane Doe, number {10**zeros}".encode() for zeros in range(4)]
    (data / "base/5/16385").write_bytes(values[2])
    assert (values[2], "base/5/16385") in found(data, *values)


def test_a_gigabyte_of_zeros_takes_no_memory(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(data / "base/5/16384", 1 << 30)
    with (data / "base/5/16384").open("ab") as file:
        file.write(CANARY.encode())
    limited = tmp_path / "rg"
    # Mapped files count in the address space, but not as data.
    limited.write_text(f'#!/bin/sh\nulimit -d 262144; exec {searches.RG} "$@"\n')
    limited.chmod(0o700)
    monkeypatch.setattr(searches, "RG", str(limited))
    assert found(data, CANARY.encode()) == {(CANARY.encode(), "base/5/16384")}
