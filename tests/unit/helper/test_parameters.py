"""Laws of the settings that an image may have: each value has its type and range, and none names anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draupnir_helper import walls
from draupnir_helper.parameters import PARAMETERS, applicable, fault


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("work_mem", "64MB"), ("work_mem", "4096"), ("work_mem", "1.5GB"), ("effective_cache_size", "524288"),
        ("random_page_cost", "1.1"), ("enable_seqscan", "off"), ("plan_cache_mode", "force_custom_plan"),
        ("datestyle", "German, DMY"), ("timezone", "Europe/Berlin"), ("timezone", "Etc/GMT+5"),
        ("lc_monetary", "de_DE.UTF-8"), ("lc_time", "C.UTF-8"), ("default_text_search_config", "pg_catalog.german"),
        ("search_path", '"$user", public'), ("search_path", ""), ("statement_timeout", "30s"), ("lock_timeout", "0"),
        ("default_transaction_isolation", "Repeatable Read"),
    ],
)  # fmt: skip
def test_usual_settings_of_production_are_accepted(name: str, value: str) -> None:
    assert fault(name, value) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("work_mem", "64 elephants"), ("work_mem", "63"), ("work_mem", "99TB"), ("work_mem", "1\n"), ("work_mem", ""),
        ("statement_timeout", "1GB"), ("geqo_seed", "2"), ("enable_seqscan", "perhaps"), ("from_collapse_limit", "1s"),
        ("timezone", "../../etc/passwd"), ("timezone", "/etc/passwd"), ("lc_time", "../x"), ("lc_time", "C\n"),
        ("search_path", "public'; x"), ("search_path", "a\nb = c"), ("default_text_search_config", "a.b.c"),
        ("datestyle", "x" * 300), ("hba_file", "/tmp/x"), ("Work_Mem", "64MB"), ("", ""),
    ],
)  # fmt: skip
def test_values_of_another_form_are_refused(name: str, value: str) -> None:
    assert fault(name, value)


def test_no_setting_is_a_wall_or_names_a_file_a_library_or_a_command() -> None:
    assert PARAMETERS.keys() & set(walls.names()) == set()
    risky = ("file", "director", "librar", "command", "preload", "socket", "host", "path", "conninfo", "provider")
    assert {name for name in PARAMETERS if any(word in name for word in risky)} == {"search_path"}


@given(st.sampled_from(sorted(PARAMETERS)), st.text())
def test_no_value_ends_its_line(name: str, value: str) -> None:
    assert fault(name, value) or "\n" not in value


def test_a_setting_that_came_later_does_not_apply_to_an_older_major() -> None:
    settings = {"transaction_timeout": "1s", "work_mem": "64MB"}
    assert applicable(16, settings) == {"work_mem": "64MB"}
    assert applicable(17, settings) == settings
