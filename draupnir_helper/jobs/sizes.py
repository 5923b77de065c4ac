"""The sizes of a server for this data, from pg_control and the number of relations, limited by the machine.

A copy has at least the connections, prepared transactions and locks of the server that it was taken from. The job
writes them into the postgresql.auto.conf of the image; privileged code does not read them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from draupnir_helper import postgres
from draupnir_helper.jobs.rows import Rows

_RELATION = re.compile(r"[0-9]+", re.ASCII)
# Some relations have no file, such as partitioned tables, and a script may create others.
_SPARE = 2
# A busy connection uses some MiB, and one of TasksMax= of the unit.
_CONNECTION_BYTES = 4 * 1024 * 1024
_MAX_CONNECTIONS = 1000
_MAX_WORKERS = 64
# Shared memory for one lock: measured 400 bytes on Postgres 17, half of them in use from the start. The lock table may
# have a thirty-second of the memory.
_LOCK_BYTES = 400
_LOCKS_SHARE = 32
_MIB = 1024 * 1024
_FIRST_WITH_ORIGINS = 18
_ORIGINS = "1000"
# Each has its name in pg_controldata, and the minimum of an instance.
_COUNTS = {
    "max_connections": ("max_connections setting", 100),
    "max_prepared_transactions": ("max_prepared_xacts setting", 0),
    "max_worker_processes": ("max_worker_processes setting", 8),
}
_LOCKS = "max_locks_per_transaction"
NAMES = {*_COUNTS, _LOCKS, "min_wal_size", "track_commit_timestamp"}
_DEFAULT_LOCKS = 64
_DEFAULT_SEGMENT_BYTES = 16 * _MIB
# An instance may have a smaller max_wal_size for its ceiling, but never less than two segments of this size.
_UNLIMITED_SEGMENT_BYTES = 64 * _MIB


class Sizes:
    """The sizes of the source, from pg_control before the job's own server changes it, and the number of relations."""

    def __init__(self, data: Path, control: Mapping[str, str]) -> None:
        self._source = {name: _number(control, label) for name, (label, _) in _COUNTS.items()}
        self._source[_LOCKS] = _number(control, "max_locks_per_xact setting")
        self._segment_bytes = _number(control, "Bytes per WAL segment") or _DEFAULT_SEGMENT_BYTES
        self._track_commit_timestamp = control.get("track_commit_timestamp setting") == "on"
        self._tablespaces = any((data / "pg_tblspc").iterdir())
        transactions = self._source["max_connections"] + self._source["max_prepared_transactions"]
        self._locks = max(transactions * self._source[_LOCKS], _SPARE * _relations(data))

    def of_job(self, major: int) -> dict[str, str]:
        """Return the settings of the job's own server; recovery needs the prepared transactions and all their locks."""
        prepared = self._source["max_prepared_transactions"]
        transactions = postgres.JOB_CONNECTIONS + prepared
        locks = min(_most_locks(transactions), -(-self._locks // transactions))
        settings = self._of_files() | {
            "max_prepared_transactions": str(prepared),
            _LOCKS: str(max(_DEFAULT_LOCKS, locks)),
            # Replay of the log of a subscriber needs a slot for each origin.
            "max_replication_slots" if major < _FIRST_WITH_ORIGINS else "max_active_replication_origins": _ORIGINS,
        }
        if self._tablespaces:
            settings["allow_in_place_tablespaces"] = "on"
        return settings

    def of_instances(self, rows: Rows) -> dict[str, str]:
        """Return the settings that differ from the usual ones of an instance; add a row for each that is limited."""
        connections = min(_MAX_CONNECTIONS, max(100, _memory_bytes() // _CONNECTION_BYTES))
        limits = {
            "max_connections": connections,
            "max_prepared_transactions": connections,
            "max_worker_processes": _MAX_WORKERS,
        }
        settings = {}
        for name, (_, usual) in _COUNTS.items():
            settings[name] = max(usual, _limited(name, self._source[name], limits[name], rows))
        transactions = settings["max_connections"] + settings["max_prepared_transactions"]
        needed = max(self._source[_LOCKS], -(-self._locks // transactions))
        settings[_LOCKS] = max(_DEFAULT_LOCKS, _limited(_LOCKS, needed, _most_locks(transactions), rows))
        usual_values = {name: usual for name, (_, usual) in _COUNTS.items()} | {_LOCKS: _DEFAULT_LOCKS}
        texts = {name: str(value) for name, value in settings.items() if value != usual_values[name]}
        if self._segment_bytes > _UNLIMITED_SEGMENT_BYTES:
            texts["max_wal_size"] = _two(self._segment_bytes)
        return texts | self._of_files()

    def _of_files(self) -> dict[str, str]:
        settings = {}
        if self._segment_bytes > _DEFAULT_SEGMENT_BYTES:
            # With wal_recycle=off it keeps no segment, but the server checks that it is at least two.
            settings["min_wal_size"] = _two(self._segment_bytes)
        if self._track_commit_timestamp:
            settings["track_commit_timestamp"] = "on"
        return settings


def _number(control: Mapping[str, str], label: str) -> int:
    """Return a count of pg_controldata, or 0 if it is invalid. Postgres limits it to 31 bits; the data may not."""
    text = control.get(label, "")
    return int(text) if re.fullmatch("[0-9]{1,10}", text) else 0


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _most_locks(transactions: int) -> int:
    """Return the largest max_locks_per_transaction for which the lock table has its share of the memory."""
    return max(_DEFAULT_LOCKS, _memory_bytes() // _LOCKS_SHARE // _LOCK_BYTES // transactions)


def _two(segment_bytes: int) -> str:
    return f"{2 * segment_bytes // _MIB}MB"


def _relations(data: Path) -> int:
    """Return the number of relations in the largest database."""
    directories = [*(data / "base").iterdir(), *(data / "pg_tblspc").glob("*/PG_*/*")]
    found: dict[str, int] = {}
    for directory in directories:
        with os.scandir(directory) as entries:
            count = sum(_RELATION.fullmatch(entry.name) is not None for entry in entries)
        found[directory.name] = found.get(directory.name, 0) + count
    return max(found.values(), default=0)


def _limited(name: str, value: int, most: int, rows: Rows) -> int:
    if value <= most:
        return value
    detail = f"The data need {name} = {value}, and instances have {most}, the maximum of this server."
    rows.add("size_limited", detail, object=name, remedy="Use a server with more memory if instances need more.")
    return most
