"""Tables that triggers wrote to are reported, and the report always fits."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from draupnir_helper.jobs import triggers
from draupnir_helper.jobs.reports import Report
from draupnir_helper.notify import escape
from draupnir_helper.wire import JobReport


def line(name: str, *, by_function: bool = False) -> str:
    return json.dumps([name, by_function, name.rpartition(".")[2]])


def test_a_table_that_the_script_names_is_listed_only_if_a_trigger_function_names_it() -> None:
    script = 'UPDATE Users SET x = 1; DELETE FROM "odd name"; DELETE FROM cleared;'
    lines = [
        line("db.public.users"),
        line("db.public.odd name"),
        line("db.audit.log"),
        line("db.public.use"),
        line("db.audit.cleared", by_function=True),
    ]
    assert triggers.tables(lines, script) == ["db.audit.log", "db.public.use", "db.audit.cleared"]


@given(st.lists(st.text(max_size=200), max_size=100))
def test_the_report_fits_a_notification_and_the_contract(names: list[str]) -> None:
    found = triggers.tables([line(name) for name in names], "")
    report = Report(step="finalised", postgres_major=17, size_bytes=2**60, finished=True, trigger_tables=found)
    assert len(escape(report.document()).encode()) < 3800
    JobReport.model_validate_json(report.document())
