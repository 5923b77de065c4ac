"""Laws of preloaded libraries: those of the operator, and others that are needed, installed and allowed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from draupnir_helper import postgres
from draupnir_helper.jobs.preflight import Need
from draupnir_helper.jobs.preloads import Preloads, listed
from draupnir_helper.jobs.rows import Rows

INSTALLED = ("auto_explain", "pg_cron", "pg_stat_statements", "timescaledb")


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "BINARIES", tmp_path / "bin")
    directory = tmp_path / "bin/17/lib"
    directory.mkdir(parents=True)
    for name in INSTALLED:
        (directory / f"{name}.so").touch()


def preloads(data: Path, source: str, *, allowed: Sequence[str] = (), operator: Sequence[str] = ()) -> Preloads:
    (data / "postgresql.auto.conf").write_text(f"shared_preload_libraries = '{source}'\n")
    order = {"shared_preload_libraries": operator, "allowed_preload_libraries": allowed}
    return Preloads(17, data, order)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("", []),
        ("pg_stat_statements,auto_explain", ["pg_stat_statements", "auto_explain"]),
        (' "$libdir/pg_cron" , timescaledb.so ', ["pg_cron", "timescaledb"]),
        ("/tmp/evil.so, ../evil, $libdir/plugins/x, -c evil=1", []),
    ],
)
def test_only_plain_names_are_read_from_the_value_of_the_source(value: str, names: list[str]) -> None:
    assert listed(value) == names


def test_a_library_of_the_source_is_preloaded_if_it_is_allowed_and_installed(tmp_path: Path) -> None:
    source = "pg_cron, pgaudit, auto_explain"
    found = preloads(tmp_path, source, allowed=["pgaudit", "auto_explain"], operator=["timescaledb"])
    assert found.libraries == ["timescaledb", "auto_explain"]
    assert found.allowed == ["auto_explain"]


def test_an_extension_that_needs_a_library_adds_it_once(tmp_path: Path) -> None:
    found = preloads(tmp_path, "", allowed=["pg_stat_statements", "pg_cron", "pgaudit"])
    needs = [Need("extension", name, "", "d") for name in ("pg_stat_statements", "hstore", "pgaudit", "timescaledb")]
    assert found.add(needs)
    assert found.libraries == ["pg_stat_statements"]
    assert not found.add(needs)


def test_libraries_that_only_the_source_preloads_are_reported_with_the_remedy(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    rows.add("preload_missing", "", object="timescaledb")
    preloads(tmp_path, "pg_cron, pgaudit, timescaledb, auto_explain", allowed=["auto_explain"]).report(rows)
    remedies = {row.object: row.remedy for row in rows if row.code == "library_not_preloaded"}
    assert remedies.keys() == {"pg_cron", "pgaudit"}
    assert '"pg_cron" to allowed_preload_libraries' in remedies["pg_cron"]
    assert "apt install postgresql-17-pgaudit" in remedies["pgaudit"]
