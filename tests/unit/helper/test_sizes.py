"""Laws of sizes: at least those of the source, never more than the machine has, and each limit is reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.sizes import Sizes

GIB = 1024**3
DEFAULTS = {
    "max_connections setting": "100",
    "max_worker_processes setting": "8",
    "max_prepared_xacts setting": "0",
    "max_locks_per_xact setting": "64",
    "track_commit_timestamp setting": "off",
    "Bytes per WAL segment": "16777216",
}


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    pages = {"SC_PHYS_PAGES": 16 * GIB // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    return pages


def sizes(directory: Path, relations: int = 30, **changes: str) -> Sizes:
    (directory / "base/5").mkdir(parents=True)
    (directory / "pg_tblspc").mkdir()
    for number in range(relations):
        (directory / f"base/5/{16384 + number}").touch()
        (directory / f"base/5/{16384 + number}_fsm").touch()
    named = {"max_connections": "max_connections setting", "prepared": "max_prepared_xacts setting"}
    named |= {"locks": "max_locks_per_xact setting", "workers": "max_worker_processes setting"}
    named |= {"segment": "Bytes per WAL segment", "timestamps": "track_commit_timestamp setting"}
    return Sizes(directory, DEFAULTS | {named[name]: value for name, value in changes.items()})


def test_a_source_with_the_defaults_needs_no_settings(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    assert sizes(tmp_path).of_instances(rows) == {}
    assert list(rows) == []


def test_an_instance_has_the_sizes_of_the_source(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    source = sizes(tmp_path, max_connections="500", prepared="50", locks="1024", workers="16", timestamps="on")
    assert source.of_instances(rows) == {
        "max_connections": "500",
        "max_prepared_transactions": "50",
        "max_locks_per_transaction": "1024",
        "max_worker_processes": "16",
        "track_commit_timestamp": "on",
    }
    assert list(rows) == []


def test_smaller_sizes_of_the_source_are_not_taken_over(tmp_path: Path) -> None:
    source = sizes(tmp_path, max_connections="20", locks="10", workers="1")
    assert source.of_instances(Rows(tmp_path)) == {}


@pytest.mark.parametrize("value", ["100000", "2147483647", "99999999999999999999", "-1", "many", ""])
def test_no_value_of_pg_control_exceeds_the_machine(tmp_path: Path, value: str) -> None:
    rows = Rows(tmp_path)
    source = sizes(tmp_path, max_connections=value, prepared=value, locks=value, workers=value)
    found = {name: int(text) for name, text in source.of_instances(rows).items()}
    assert found.get("max_connections", 100) <= 1000
    assert found.get("max_worker_processes", 8) <= 64
    transactions = found.get("max_connections", 100) + found.get("max_prepared_transactions", 0)
    assert found.get("max_locks_per_transaction", 64) * transactions * 400 <= GIB // 2
    assert int(source.of_job(17)["max_locks_per_transaction"]) * 400 * 40 <= GIB // 2
    assert {row.object for row in rows} <= {*found, "max_locks_per_transaction"}


def test_a_limit_is_reported_with_both_numbers(tmp_path: Path, memory: dict[str, int]) -> None:
    memory["SC_PHYS_PAGES"] = GIB // 4096
    rows = Rows(tmp_path)
    assert sizes(tmp_path, max_connections="500").of_instances(rows)["max_connections"] == "256"
    (row,) = rows
    assert (row.code, row.object) == ("size_limited", "max_connections")
    assert "500" in row.detail
    assert "256" in row.detail


def test_all_relations_of_the_largest_database_fit_into_the_lock_table(tmp_path: Path) -> None:
    source = sizes(tmp_path, relations=4000)
    assert 100 * int(source.of_instances(Rows(tmp_path))["max_locks_per_transaction"]) >= 8_000
    assert 40 * int(source.of_job(17)["max_locks_per_transaction"]) >= 8_000


@pytest.mark.parametrize(("mib", "more"), [(16, {}), (1, {}), (64, {}), (1024, {"max_wal_size": "2048MB"})])
def test_the_log_may_have_two_segments_of_any_size(tmp_path: Path, mib: int, more: dict[str, str]) -> None:
    found = sizes(tmp_path, segment=str(mib << 20)).of_instances(Rows(tmp_path))
    assert found == ({"min_wal_size": f"{2 * mib}MB"} if mib > 16 else {}) | more


def test_the_job_can_recover_prepared_transactions_and_replication_origins(tmp_path: Path) -> None:
    source = sizes(tmp_path, prepared="7")
    assert source.of_job(17)["max_prepared_transactions"] == "7"
    assert source.of_job(17)["max_replication_slots"] == "1000"
    assert source.of_job(18)["max_active_replication_origins"] == "1000"


def test_tablespaces_are_directories_in_the_job(tmp_path: Path) -> None:
    source = sizes(tmp_path)
    assert "allow_in_place_tablespaces" not in source.of_job(17)
    (tmp_path / "more/pg_tblspc/16400/PG_17_1/5").mkdir(parents=True)
    (tmp_path / "more/base").mkdir()
    assert Sizes(tmp_path / "more", DEFAULTS).of_job(17)["allow_in_place_tablespaces"] == "on"
