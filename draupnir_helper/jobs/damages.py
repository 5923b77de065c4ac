"""Recognises damaged files of the data in the messages of Postgres, whose texts may quote rows and stay private."""

from __future__ import annotations

import re
from typing import NamedTuple

from draupnir_helper.jobs import failures
from draupnir_helper.jobs.known_files import shown
from draupnir_helper.jobs.reports import JobError

# Finds data_corrupted, index_corrupted and undefined_file in the verbose output of psql and in the server's log.
_REPORTED = re.compile(
    r"^(?:psql:[^\n]*: (?:ERROR|FATAL|PANIC):  (?P<psql>XX001|XX002|58P01): "
    r"|(?P<log>XX001|XX002|58P01) (?:ERROR|FATAL|PANIC):  )(?P<message>[^\n]*)",
    re.MULTILINE,
)
_FILE = re.compile(
    r"(?<![\w/])(?P<path>(?:base/(?P<database>\d+)|global|pg_tblspc/(?P<tablespace>\d+)/PG_\d+_\d+/(?P<database_there>\d+))"
    r"/(?P<filenode>\d+)|pg_(?:xact|multixact/members|multixact/offsets)/[0-9A-F]{4,15})",
    re.ASCII,
)
_GLOBAL_TABLESPACE = 1664
_TOAST = re.compile(r"\bpg_toast_(\d+)\b", re.ASCII)
_INDEX = re.compile(r'\bindex "([^"]+)"')


class Damage(NamedTuple):
    """Damage that Postgres reported: the SQLSTATE, and the file and the relation if the message has them."""

    state: str
    path: str = ""
    database: int = 0
    tablespace: int = 0
    filenode: int = 0
    toasted: int = 0  # the oid of a table
    index_name: str = ""


def found(text: str) -> Damage | None:
    """Return the first damage in the output of psql or in the server's log."""
    for reported in _REPORTED.finditer(text):
        state, message = reported["psql"] or reported["log"], reported["message"]
        # Only the DETAIL names the file of a lost transaction status.
        file = _FILE.search(message) or (_FILE.search(text) if state == "58P01" and '"' not in message else None)
        toast, index = _TOAST.search(message), _INDEX.search(message)
        if file:
            filenode = int(file["filenode"] or 0)
            database = int(file["database"] or file["database_there"] or 0)
            tablespace = int(file["tablespace"] or (_GLOBAL_TABLESPACE if filenode and not database else 0))
            return Damage(state, file["path"], database, tablespace, filenode)
        # A missing library is an undefined_file, too.
        if state != "58P01":
            return Damage(state, toasted=int(toast[1]) if toast else 0, index_name=index[1] if index else "")
    return None


def failure(major: int, damage: Damage, relation: str, private: str) -> JobError:
    """Return the failure; `relation` is a description with names of the catalog, or empty."""
    where = shown(relation) or (f"the file {damage.path}" if damage.path else "a relation")
    detail = (
        f"The data are damaged: {where} is incomplete or corrupt ({failures.described(major, damage.state)}). No "
        "script can help. Check the source with pg_amcheck, take another backup, and upload it to a new image."
    )
    return JobError("backup_damaged", detail, private)
