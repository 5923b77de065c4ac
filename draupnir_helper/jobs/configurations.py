"""Finds the settings of the source that instances get: reads its configuration files, and has the server check them.

They change answers or plans: formats, time zone, text search, planner, memory, timeouts. parameters.py has the list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from draupnir_helper import parameters
from draupnir_helper.jobs import sizes
from draupnir_helper.jobs.clusters import Cluster
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows

FILES = ("postgresql.conf", "postgresql.auto.conf")
PRELOAD = "shared_preload_libraries"
MAX_REFUSED = 20
_MAX_BYTES = 1024 * 1024
_INCLUDES = {"include", "include_dir", "include_if_exists"}
_REPORT_BYTES = 3000  # of all settings together, because the job's status carries them
# The lexical rules of Postgres's configuration files: name, optional equals sign, value.
_SETTING = re.compile(r"\s*([A-Za-z_][\w.$]*)(?:\s*=\s*|\s+)(?:'((?:[^'\\]|''|\\.)*)'|([^\s#']+))\s*(?:#.*)?")
# The script's session has the settings of these groups.
_OF_SCRIPT = {"formats", "text_search", "time_zone", "locale"}


def of_source(directories: Iterable[Path]) -> dict[str, str]:
    """Return the settings in the configuration files of these directories.

    The last directory overrides the others, and postgresql.auto.conf overrides postgresql.conf, as in Postgres.
    """
    found: dict[str, str] = {}
    for path in (directory / name for name in FILES for directory in directories):
        found |= read(path)
    return found


def report_unknown(directories: Iterable[Path], found: Mapping[str, str], rows: Rows) -> None:
    """Report files with settings of the source that the job cannot read."""
    if not any(_is_read(directory / FILES[0]) for directory in directories):
        rows.add(
            "settings_unknown",
            "The upload has no postgresql.conf, so instances have no setting of that file.",
            object=FILES[0],
            remedy="Upload the file beside the backup to a new image. Debian keeps it in /etc/postgresql.",
        )
    for name in sorted(found.keys() & _INCLUDES):
        rows.add(
            "settings_unknown",
            "postgresql.conf includes other files, and instances have no setting of those.",
            object=found[name],
            remedy="Copy the settings that matter into the uploaded postgresql.conf, or give them with "
            "`draupnir-client images create --set`.",
        )


def carried_over(found: Mapping[str, str], rows: Rows) -> dict[str, str]:
    """Return the settings that instances may have, and report the names of the others."""
    carried = {name: value for name, value in found.items() if parameters.fault(name, value) is None}
    while len(json.dumps(carried)) > _REPORT_BYTES:
        carried.popitem()
    if dropped := sorted(found.keys() - carried.keys() - sizes.NAMES - _INCLUDES - {PRELOAD}):
        rows.add(
            "settings_dropped",
            "Instances do not have these settings of the source.",
            object=", ".join(dropped),
            remedy="No action is needed, unless the application depends on one of them.",
        )
    return carried


def _is_read(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def read(path: Path) -> dict[str, str]:
    """Return the settings in a configuration file, without those of files that it includes."""
    if not _is_read(path):
        return {}
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = file.read(_MAX_BYTES).splitlines()
    settings = {}
    for line in lines:
        if match := _SETTING.fullmatch(line):
            quoted = None if match[2] is None else re.sub(r"''|\\'", "'", match[2])
            settings[match[1].lower()] = match[3] if quoted is None else quoted
    return settings


def refused(cluster: Cluster, carried: Mapping[str, str], given: Mapping[str, str], rows: Rows) -> list[str]:
    """Check the settings with Postgres, report them, and return the names of settings of the source that it refuses.

    Raises setting_refused if Postgres refuses a setting that was given with the image.
    """
    wanted = {**carried, **given}
    accepted = cluster.accepts(wanted)
    if unknown := sorted(given.keys() - accepted):
        named = ", ".join(f"{name} = {given[name]}" for name in unknown)
        detail = (
            f"Postgres {cluster.major} refuses settings of the image ({named}). Correct them with `draupnir-client "
            "images update ID --set NAME=VALUE`, and finalise again."
        )
        raise JobError("setting_refused", detail)
    if kept := sorted(carried.keys() & accepted):
        rows.add("settings_carried_over", "Instances have these settings of the source.", object=", ".join(kept))
    missing = sorted(carried.keys() - accepted)
    if missing:
        rows.add(
            "settings_refused",
            f"Postgres {cluster.major} on this server refuses these settings of the source.",
            object=", ".join(missing),
            remedy="Set them with `draupnir-client images create --set`, or install what they name, such as a locale.",
        )
    if len(missing) > MAX_REFUSED:
        detail = (
            f"Postgres {cluster.major} refuses {len(missing)} settings of the source, more than {MAX_REFUSED}. Correct "
            "postgresql.conf and postgresql.auto.conf of the source, and upload a backup to a new image."
        )
        raise JobError("setting_refused", detail)
    return missing


def of_script(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that also apply to the script's session."""
    found = {name: value for name, value in settings.items() if parameters.PARAMETERS[name].group in _OF_SCRIPT}
    # Another isolation level could make the script fail.
    found.pop("default_transaction_isolation", None)
    return found
