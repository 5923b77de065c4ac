"""Searches all files of a finalised image for canaries: values of the source that the script must have removed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from draupnir_helper.jobs.clusters import Cluster
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.sessions import in_each

GREP = "/usr/bin/grep"
_RELATIONS = Path(__file__).with_name("sql") / "relations.sql"
_FILE = re.compile(r"(?:.*/)?([0-9]+)/([0-9]+)(?:_[a-z]+)?(?:\.[0-9]+)?")
_NAMED = 10

# The name of a relation, by oid of the database and filenode.
Relations = Mapping[tuple[int, int], str]


def relations(cluster: Cluster, databases: Mapping[str, int], canaries: Sequence[str]) -> Relations:
    """Return the names of all relations, for the message of a hit. Without canaries it is empty."""
    if not canaries:
        return {}
    found = in_each(databases, lambda database: cluster.run_files(database, _RELATIONS))
    named = {}
    for (database, oid), lines in zip(databases.items(), found, strict=True):
        for each in map(json.loads, filter(None, lines)):
            named[oid, each["filenode"]] = f"{each['name']} in database {database}"
    return named


def require_absent(data: Path, directory: Path, canaries: Sequence[str], names: Relations, rows: Rows) -> None:
    """Search the files in one pass. Raises canary_found; the message names files and relations, and no value."""
    if not canaries:
        return
    patterns = directory / "canaries"
    patterns.write_bytes("".join(f"{canary}\n" for canary in canaries).encode())
    finished = subprocess.run(
        # In this locale grep compares bytes. With -a it would read a gigabyte of zeros into memory, as one line.
        [GREP, "-rlF", "-f", str(patterns), "."],
        cwd=data, capture_output=True, text=True, errors="replace", check=False, env={"LC_ALL": "C"},
    )  # fmt: skip
    patterns.unlink()
    if finished.returncode not in {0, 1}:
        raise JobError("job_failed", "The search for canaries failed. Finalise again.", finished.stderr)
    if hits := sorted(finished.stdout.splitlines()):
        raise JobError("canary_found", _message(hits, names))
    rows.add(
        "canaries_absent",
        f"No file of the image contains one of the {len(canaries)} canaries. The search cannot see values that Postgres"
        " stored compressed.",
    )


def _message(hits: Sequence[str], names: Relations) -> str:
    named = ", ".join(dict.fromkeys(_named(hit, names) for hit in hits[:_NAMED]))
    more = f" and {len(hits) - _NAMED} more files" if len(hits) > _NAMED else ""
    return (
        f"Canaries are still in the image, in {named}{more}. Mask these values in the script too, and finalise again."
    )


def _named(hit: str, names: Relations) -> str:
    path = hit.removeprefix("./")
    found = _FILE.fullmatch(path)
    name = names.get((int(found[1]), int(found[2]))) if found else None
    return f"{name} ({path})" if name else path
