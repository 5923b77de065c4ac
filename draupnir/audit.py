"""Writes the audit log to the journal, with its own identifier: who changed what, from where, with which result."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from urllib.parse import quote

from draupnir.errors import DraupnirError
from draupnir.lifecycles import Event

LOGGER = "draupnir.audit"
MAX_VALUE_CHARS = 256

# These refusals may indicate an attack.
_SUSPICIOUS = frozenset({401, 403, 429})

log = logging.getLogger(LOGGER)


@dataclass(slots=True)
class Origin:
    """The caller of work. Work that outlives its request gets a separate line."""

    caller: str = "draupnir"
    client_address: str = "-"
    request_id: str = "-"
    answered: bool = True
    reason: str = ""


# Every task that a request starts inherits its origin; the daemon's own work has the default.
origin: ContextVar[Origin] = ContextVar("origin", default=Origin())  # noqa: B039


@contextmanager
def for_reason(reason: str) -> Iterator[None]:
    """Set the reason of work that starts in this block, such as `owner_left:jane@example.com`."""
    before = origin.set(replace(origin.get(), reason=reason))
    try:
        yield
    finally:
        origin.reset(before)


def record_request(
    of: Origin, method: str, path: str, status: int, *, code: str = "", made: str = "", took_ms: int = 0
) -> None:
    """Record a request that changes something. `code` is the reason of a refusal, `made` the path of a new resource."""
    fields = {"METHOD": method, "PATH": path, "MADE": made, "STATUS": str(status), "CODE": code, "MS": str(took_ms)}
    result = "done" if status < 400 else "refused" if status < 500 else "failed"
    grave = status in _SUSPICIOUS or status >= 500
    _write(logging.WARNING if grave else logging.INFO, of, result, fields)


def record_event(of: Origin, event: Event) -> None:
    """Record a committed change of a status."""
    what = {"EVENT": event.name, "SUBJECT": f"{event.kind}_{event.subject_id}", "OWNER": event.owner or ""}
    change = {"BEFORE": event.before or "", "AFTER": event.after or ""}
    _write(logging.INFO, replace(of, reason=event.reason), "done", {**what, **change})


def record_work(of: Origin, what: str, error: BaseException | None) -> None:
    """Record the end of work, such as `destroy instance 4`."""
    what = what.replace(" ", "_")
    code = error.code if isinstance(error, DraupnirError) else "internal" if error else ""
    level = logging.WARNING if error else logging.INFO
    _write(level, of, "failed" if error else "done", {"WORK": what, "CODE": code})


def _write(level: int, of: Origin, result: str, what: dict[str, str]) -> None:
    """Write a line; values are escaped and contain neither spaces nor line ends, so they cannot forge others."""
    who = {"CALLER": of.caller, "SOURCE": of.client_address}
    every = {**who, **what, "REASON": of.reason, "RESULT": result, "REQUEST": of.request_id}
    fields = {
        name: quote(value[:MAX_VALUE_CHARS], safe="/:@+,", errors="replace") for name, value in every.items() if value
    }
    text = " ".join(f"{name.lower()}={value}" for name, value in fields.items())
    log.log(level, "%s", text, extra={"fields": {f"DRAUPNIR_{name}": value for name, value in fields.items()}})
