"""Logging to the journal by way of stdout: each line opens with its priority in angle brackets, see sd-daemon(3)."""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path

from draupnir import audit

DEBUG, INFO, WARNING, ERROR, CRITICAL = 7, 6, 4, 3, 2
JOURNAL = Path("/run/systemd/journal/socket")
AUDIT_IDENTIFIER = "draupnir-audit"


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


class AuditHandler(logging.Handler):
    """Writes to the journal itself, with a field for each value, see systemd.journal-fields(7).

    Where the journal does not take it, it goes the way of all other lines: it is late then rather than lost.
    """

    def __init__(self, journal: Path, otherwise: logging.Handler) -> None:
        super().__init__()
        self._journal = str(journal)
        self._otherwise = otherwise
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        """One entry; `record.fields` are of one line each."""
        fields = {
            "MESSAGE": record.getMessage(),
            "PRIORITY": str(priority_of(record.levelno)),
            "SYSLOG_IDENTIFIER": AUDIT_IDENTIFIER,
            **record.__dict__.get("fields", {}),
        }
        try:
            self._socket.sendto("".join(f"{name}={value}\n" for name, value in fields.items()).encode(), self._journal)
        except OSError:
            self._otherwise.handle(record)

    def close(self) -> None:
        """Gives the socket back."""
        self._socket.close()
        super().close()


def log_to_journal() -> None:
    """Sends every logger to stdout in the journal's form, and the audit log to the journal itself."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JournalFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger(audit.LOGGER).addHandler(AuditHandler(JOURNAL, handler))
    logging.getLogger(audit.LOGGER).propagate = False
    # What uvicorn says at INFO is systemd's to say (started, stopped) or the access log's, and its warnings are of what
    # any client can send.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    # A line for each request of ours to the identity provider is no news.
    logging.getLogger("httpx").setLevel(logging.WARNING)
