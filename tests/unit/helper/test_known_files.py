"""Laws of an extracted copy: it has every file that Postgres needs, nothing else, and the report lists the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from draupnir_helper.jobs.known_files import prune
from draupnir_helper.jobs.rows import Rows

KNOWN = [
    "PG_VERSION", "backup_label", "base/1/1259", "base/1/1259_fsm", "base/1/1259_vm", "base/1/1259.1",
    "base/1/1259_fsm.12", "base/16384/16385_init", "base/1/PG_VERSION", "base/1/pg_filenode.map", "global/1262",
    "global/pg_control", "global/pg_filenode.map", "pg_commit_ts/0000",
    "pg_logical/snapshots/0-1532F60.snap", "pg_logical/mappings/map-4000-4eb-1_60DE1E08-1C28-3ba",
    "pg_multixact/members/0000", "pg_multixact/offsets/0000", "pg_subtrans/0000", "pg_xact/0000", "pg_xact/0FFFFF",
    "pg_twophase/000002E7", "pg_twophase/00000000000002E7", "pg_wal/000000010000000000000001",
    "pg_wal/000000010000000000000001.partial", "pg_wal/00000002.history",
    "pg_wal/000000010000000000000002.00000028.backup",
    "pg_tblspc/16400/PG_17_202406281/16384/16401", "pg_tblspc/16400/PG_17_202406281/16384/PG_VERSION",
]  # fmt: skip
EXPECTED = [
    "postgresql.conf", "pg_hba.conf", "pg_ident.conf", "postmaster.pid", "postmaster.opts", "standby.signal",
    "recovery.signal", "backup_label.old", "current_logfiles", "backup_manifest", "base/1/pg_internal.init",
    "base/1/t3_16401", "base/pgsql_tmp/pgsql_tmp123.0", "global/pg_internal.init", "pg_wal/xlogtemp.12",
    "pg_wal/archive_status/000000010000000000000001.done", "pg_wal/summaries/0001.summary", "pg_replslot/slot/state",
    "pg_stat/pgstat.stat", "pg_stat/pg_stat_statements.stat", "pg_stat_tmp/pgss_query_texts.stat",
    "pg_snapshots/00000003-1", "pg_logical/replorigin_checkpoint",
    "pg_notify/0000", "pg_serial/0000", "pg_tblspc/16400/PG_17_202406281/pgsql_tmp/x",
]  # fmt: skip
UNKNOWN = [
    ".pgpass", "server.key", "root.crt", "postgresql.conf.bak", "conf.d/", "recovery.conf", "log/", "pg_log/",
    "archive/", "core.1234", "dump.sql", "._PG_VERSION", ".DS_Store", "base/1/._1259", "base/1/1259.bak",
    "base/1/1259_old", "base/x/", "global/pg_control.old", "pg_wal/000000010000000000000001.gz", "pg_xact/._0000",
    "pg_wal/archive/", "pg_upgrade_output.d/", "pg_xlog/", "cstore_fdw/", "base/1/nested/", "with\nnewline",
    "pg_tblspc/other/", "pg_tblspc/16400/PG_15_202209061/", "base/\N{ARABIC-INDIC DIGIT ONE}/",
]  # fmt: skip


def write(directory: Path, name: str) -> None:
    path = directory / (f"{name}content" if name.endswith("/") else name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"secret")


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


def test_files_that_postgres_needs_stay_and_are_not_reported(tmp_path: Path, rows: Rows) -> None:
    for name in KNOWN:
        write(tmp_path, name)
    prune(tmp_path, 17, rows)
    assert files(tmp_path) == set(KNOWN)
    assert list(rows) == []


@pytest.mark.parametrize("name", EXPECTED)
def test_usual_but_unneeded_files_are_dropped_without_a_report(tmp_path: Path, rows: Rows, name: str) -> None:
    write(tmp_path, name)
    prune(tmp_path, 17, rows)
    assert files(tmp_path) == set()
    assert list(rows) == []


@pytest.mark.parametrize("name", UNKNOWN)
def test_all_other_files_are_dropped_and_reported(tmp_path: Path, rows: Rows, name: str) -> None:
    write(tmp_path, name)
    prune(tmp_path, 17, rows)
    assert files(tmp_path) == set()
    assert [(row.code, row.object) for row in rows] == [("file_dropped", ascii(name)[1:-1])]


def test_of_many_files_in_one_directory_the_report_lists_a_few_and_counts_the_rest(tmp_path: Path, rows: Rows) -> None:
    for number in range(1000):
        write(tmp_path, f"base/1/._{number}")
    prune(tmp_path, 17, rows)
    assert len(list(rows)) == 20
    assert list(rows)[-1].object == "base/1/"
    assert "981 more files" in list(rows)[-1].detail


def test_directories_that_are_often_empty_are_made(tmp_path: Path, rows: Rows) -> None:
    prune(tmp_path, 17, rows)
    assert (tmp_path / "pg_twophase").is_dir()
    assert (tmp_path / "pg_logical/snapshots").is_dir()
    assert not (tmp_path / "pg_xact").exists(), "it is never empty, so the copy is incomplete"
