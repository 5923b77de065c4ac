"""Laws of the journal format: every line has its own priority, with any text."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from draupnir import audit
from draupnir.logs import AuditHandler, JournalFormatter


@pytest.mark.parametrize(
    ("level", "prefix"), [("DEBUG", "<7>"), ("INFO", "<6>"), ("WARNING", "<4>"), ("ERROR", "<3>"), ("CRITICAL", "<2>")]
)
def test_a_level_becomes_a_priority(level: str, prefix: str) -> None:
    record = logging.makeLogRecord({"name": "x", "levelno": getattr(logging, level), "msg": "hello"})
    assert JournalFormatter().format(record) == f"{prefix}x: hello"


def test_no_text_can_forge_a_separate_record() -> None:
    record = logging.makeLogRecord({"name": "x", "levelno": logging.INFO, "msg": "a\n<0>forged\r<0>\x85<0>more"})
    assert all(line.startswith("<6>") for line in JournalFormatter().format(record).splitlines())


def test_an_empty_text_is_still_a_line() -> None:
    assert JournalFormatter().format(logging.makeLogRecord({"name": "", "levelno": 20, "msg": ""})) == "<6>: "


def audited(handler: logging.Handler) -> None:
    """Return one audit line through the handler and nothing else."""
    logger = logging.getLogger(audit.LOGGER)
    logger.addHandler(handler)
    before, logger.propagate = logger.propagate, False
    logger.setLevel(logging.INFO)
    try:
        origin = audit.Origin("jane@corp.example\nPRIORITY=0", "10.0.0.1", "id-7")
        audit.record_request(origin, "POST", "/instances", 201, made="/instances/4", took_ms=12)
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
        handler.close()


def test_an_audit_line_is_one_entry_with_a_field_for_each_value(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        audited(AuditHandler(tmp_path / "journal", logging.NullHandler()))
        fields = dict(line.split("=", 1) for line in journal.recv(65536).decode().splitlines())
    assert fields.pop("MESSAGE").startswith("caller=jane@corp.example%0APRIORITY%3D0 source=10.0.0.1 method=POST ")
    assert fields == {
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "draupnir-audit",
        "DRAUPNIR_CALLER": "jane@corp.example%0APRIORITY%3D0",
        "DRAUPNIR_SOURCE": "10.0.0.1",
        "DRAUPNIR_METHOD": "POST",
        "DRAUPNIR_PATH": "/instances",
        "DRAUPNIR_MADE": "/instances/4",
        "DRAUPNIR_STATUS": "201",
        "DRAUPNIR_MS": "12",
        "DRAUPNIR_RESULT": "done",
        "DRAUPNIR_REQUEST": "id-7",
    }


def test_an_audit_line_that_the_journal_refuses_is_not_lost(tmp_path: Path) -> None:
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    audited(AuditHandler(tmp_path / "no journal", Kept()))
    (line,) = lines
    assert "result=done request=id-7" in line
