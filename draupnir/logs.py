"""Logs to the journal through stdout: each line starts with its priority in angle brackets, see sd-daemon(3)."""

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
    """Return the syslog priority of a level of Python's logging."""
    if level >= logging.CRITICAL:
        return CRITICAL
    if level >= logging.ERROR:
        return ERROR
    if level >= logging.WARNING:
        return WARNING
    return INFO if level >= logging.INFO else DEBUG


class JournalFormatter(logging.Formatter):
    """Formats one line for each record. Lines of a traceback have the same priority, so that a filter finds them."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Format the record with `<priority>` before each line, so that a text cannot forge a separate record."""
        prefix = f"<{priority_of(record.levelno)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines() or [""])


class AuditHandler(logging.Handler):
    """Writes to the journal's socket, with a field for each value, see systemd.journal-fields(7).

    If the journal does not accept an entry, it goes to stdout like other lines, so that it is not lost.
    """

    def __init__(self, journal: Path, otherwise: logging.Handler) -> None:
        super().__init__()
        self._journal = str(journal)
        self._otherwise = otherwise
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one entry; each of `record.fields` is a single line."""
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
        """Close the socket."""
        self._socket.close()
        super().close()


def log_to_journal() -> None:
    """Send every logger to stdout in the journal's format, and the audit log to the journal's socket."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JournalFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger(audit.LOGGER).addHandler(AuditHandler(JOURNAL, handler))
    logging.getLogger(audit.LOGGER).propagate = False
    # uvicorn's INFO messages duplicate those of systemd and the access log, and any client can cause its warnings.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    # Do not log each of our requests to the identity provider.
    logging.getLogger("httpx").setLevel(logging.WARNING)
