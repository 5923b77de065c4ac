"""Laws of the journal form: every line carries its own priority, whatever the text says."""

from __future__ import annotations

import logging

import pytest

from draupnir.logs import JournalFormatter


@pytest.mark.parametrize(
    ("level", "prefix"), [("DEBUG", "<7>"), ("INFO", "<6>"), ("WARNING", "<4>"), ("ERROR", "<3>"), ("CRITICAL", "<2>")]
)
def test_a_level_becomes_a_priority(level: str, prefix: str) -> None:
    record = logging.makeLogRecord({"name": "x", "levelno": getattr(logging, level), "msg": "hello"})
    assert JournalFormatter().format(record) == f"{prefix}x: hello"


def test_no_text_can_pose_as_an_event_of_its_own() -> None:
    record = logging.makeLogRecord({"name": "x", "levelno": logging.INFO, "msg": "a\n<0>forged\r<0>\x85<0>more"})
    assert all(line.startswith("<6>") for line in JournalFormatter().format(record).splitlines())


def test_an_empty_text_is_still_a_line() -> None:
    assert JournalFormatter().format(logging.makeLogRecord({"name": "", "levelno": 20, "msg": ""})) == "<6>: "
