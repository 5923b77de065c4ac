"""Logging to the journal by way of stdout: each line opens with its priority in angle brackets, see sd-daemon(3)."""

from __future__ import annotations

import logging
import sys

DEBUG, INFO, WARNING, ERROR, CRITICAL = 7, 6, 4, 3, 2


def priority_of(level: int) -> int:
    """The syslog priority of a level of Python's logging."""
    if level >= logging.CRITICAL:
        return CRITICAL
    if level >= logging.ERROR:
        return ERROR
    if level >= logging.WARNING:
        return WARNING
    return INFO if level >= logging.INFO else DEBUG


class JournalFormatter(logging.Formatter):
    """One line an event; the lines of a traceback follow with the same priority, so that they are found together."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record with `<priority>` before each of its lines, so that no text can pose as an event of its own."""
        prefix = f"<{priority_of(record.levelno)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines() or [""])


def log_to_journal() -> None:
    """Sends every logger to stdout in the journal's form."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JournalFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # What uvicorn says at INFO is systemd's to say (started, stopped) or the access log's.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # A line for each request of ours to the identity provider is no news.
    logging.getLogger("httpx").setLevel(logging.WARNING)
