"""The table of settings agrees with pg_settings, and the job carries over only settings that its server accepts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from draupnir_helper.jobs import configurations
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.parameters import PARAMETERS
from tests.postgres import Cluster, binaries

MAJOR = int(binaries().parent.name)
# Their values in pg_settings are counted in these.
UNIT_KB = {"kB": 1, "8kB": 8, "ms": 1, None: 1}


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> dict[str, dict[str, Any]]:
    with psycopg.connect(cluster.dsn(), row_factory=dict_row) as connection:
        return {row["name"].lower(): row for row in connection.execute("SELECT * FROM pg_settings")}


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_each_setting_is_one_of_postgres_with_its_type_and_range(served: dict[str, dict[str, Any]], name: str) -> None:
    parameter = PARAMETERS[name]
    assert (name in served) == (parameter.since <= MAJOR)
    if name not in served:
        return
    found = served[name]
    assert found["context"] in {"user", "superuser"}
    match found["vartype"]:
        case "bool":
            assert {"on", "off"} <= parameter.words
        case "enum":
            assert parameter.words <= {*found["enumvals"], "on", "off"}
        case "string":
            assert parameter.pattern
        case _:
            unit = UNIT_KB[found["unit"]]
            assert float(found["min_val"]) * unit <= parameter.low < parameter.high <= float(found["max_val"]) * unit


def write(directory: Path, name: str, text: str) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(text)
    return directory


def test_the_last_value_of_the_files_is_carried_over(tmp_path: Path) -> None:
    beside = write(
        tmp_path / "seal", "postgresql.conf", "work_mem = 4MB # a comment\nDateStyle 'German, DMY'\nport=1\n"
    )
    write(beside, "other.conf", "geqo = off\n")
    data = write(tmp_path / "data", "postgresql.auto.conf", "# comment\nwork_mem = '64MB'\nbad line here\n")
    rows = Rows(tmp_path)
    assert configurations.carried_over(configurations.of_source((data, beside)), rows) == {
        "work_mem": "64MB",
        "datestyle": "German, DMY",
    }
    (row,) = rows
    assert (row.code, row.object) == ("settings_dropped", "port")


def test_a_configuration_file_that_is_not_in_the_upload_is_reported(tmp_path: Path) -> None:
    data = write(tmp_path / "data", "postgresql.auto.conf", "include_dir = 'conf.d'\n")
    for beside, missing in (
        (tmp_path / "empty", {"postgresql.conf", "conf.d"}),
        (write(tmp_path / "seal", "postgresql.conf", "include_if_exists local.conf"), {"conf.d", "local.conf"}),
    ):
        rows = Rows(tmp_path)
        directories = (data, beside)
        configurations.report_unknown(directories, configurations.of_source(directories), rows)
        assert configurations.carried_over(configurations.of_source(directories), rows) == {}
        assert {(row.code, row.object) for row in rows} == {("settings_unknown", name) for name in missing}


def test_a_configuration_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("work_mem = 64MB")
    (tmp_path / "postgresql.conf").symlink_to(tmp_path / "elsewhere")
    assert configurations.carried_over(configurations.of_source((tmp_path,)), Rows(tmp_path)) == {}


def test_very_many_settings_fit_into_the_report_of_the_job(tmp_path: Path) -> None:
    text = "".join(f"{name} = '{'x' * 180}'\n" for name in ("search_path", "default_text_search_config"))
    write(tmp_path, "postgresql.conf", text + "".join(f"{name} = on\n" for name in PARAMETERS))
    assert len(str(configurations.carried_over(configurations.of_source((tmp_path,)), Rows(tmp_path)))) < 3200


def of_source(accepted: set[str]) -> Any:
    return SimpleNamespace(major=MAJOR, accepts=lambda wanted: accepted & wanted.keys())


def test_a_refused_setting_is_reported_or_fails_the_image_that_sets_it(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    cluster = of_source({"work_mem"})
    assert configurations.refused(cluster, {"work_mem": "1MB", "lc_time": "xx_XX"}, {}, rows) == ["lc_time"]
    assert {row.code: row.object for row in rows} == {
        "settings_carried_over": "work_mem",
        "settings_refused": "lc_time",
    }
    with pytest.raises(JobError, match="lc_time = xx_XX") as raised:
        configurations.refused(cluster, {}, {"lc_time": "xx_XX"}, rows)
    assert raised.value.code == "setting_refused"
