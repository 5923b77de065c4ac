"""Checks before the script whether this server has all that the data need, and reports all gaps, with remedies."""

from __future__ import annotations

import json
import locale
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from draupnir_helper import postgres
from draupnir_helper.jobs.known_files import shown
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Row, Rows

_SHARED = Path("/usr/share/postgresql")
_LOCALE = re.compile(r'LC_(?:COLLATE|CTYPE) "([^"\n]{1,60})"')
_AGAIN = "Then finalise again."
_OR_REMOVE = "Or remove it from the list and restart draupnir-helper."
# The character sets of localedef, which does not know the short spelling, such as iso885915.
_CHARSET = re.compile(r"UTF-8|ISO-8859-[0-9]{1,2}|EUC-(JP|KR|TW)|CP125[0-9]|KOI8-[RTU]")

# Library or extension → the end of the name of Debian's package postgresql-MAJOR-…, where they differ.
_PACKAGES = {
    "vector": "pgvector", "pg_cron": "cron", "pg_partman": "partman", "pg_partman_bgw": "partman",
    "pg_repack": "repack", "pg_dirtyread": "dirtyread", "pg_similarity": "similarity", "mysql_fdw": "mysql-fdw",
    "postgis": "postgis-3", "postgis-3": "postgis-3", "postgis_raster-3": "postgis-3",
    "postgis_topology-3": "postgis-3", "postgis_sfcgal-3": "postgis-3", "address_standardizer-3": "postgis-3",
    "plugin_debugger": "pldebugger", "tdigest": "tdigest", "tds_fdw": "tds-fdw", "ogr_fdw": "ogr-fdw",
}  # fmt: skip
# The package has the same name, with hyphens.
_SAME = {
    "debversion", "first_last_agg", "hll", "hypopg", "icu_ext", "ip4r", "jsquery", "numeral", "orafce", "periods",
    "pg_fact_loader", "pg_hint_plan", "pg_qualstats", "pg_stat_kcache", "pg_track_settings", "pg_wait_sampling",
    "pgaudit", "pgl_ddl_deploy", "pglogical", "pgmp", "pgpcre", "pgsphere", "pgtap", "plpgsql_check", "plprofiler",
    "plproxy", "plr", "plsh", "pllua", "pointcloud", "prefix", "preprepare", "prioritize", "q3c", "rational", "rum",
    "semver", "set_user", "snakeoil", "tablelog", "toastinfo", "unit",
}  # fmt: skip
_LANGUAGES = {"plperl": "plperl", "plpython3": "plpython3", "pltcl": "pltcl"}
# Extensions whose functions fail unless the server has loaded the library at its start, and those without whose
# library the tables cannot be read either.
_USED_BY_FUNCTIONS = {
    "credcheck", "pg_cron", "pg_net", "pg_qualstats", "pg_squeeze", "pg_stat_kcache", "pg_stat_monitor",
    "pg_stat_statements", "pg_tle", "pg_wait_sampling", "pgaudit", "pglogical", "pgsodium", "set_user",
}  # fmt: skip
_INDISPENSABLE = {"citus", "timescaledb"}
PRELOADED = _USED_BY_FUNCTIONS | _INDISPENSABLE
# The image can be made without them, unless the operator requires them.
_DISPENSABLE = {"extension_missing", "preload_missing"}
# Option of a dictionary → the end of the file's name.
_FILES = {"dictfile": "dict", "afffile": "affix", "stopwords": "stop", "synonyms": "syn", "rules": "rules"}


class Need(NamedTuple):
    """A line of preflight.sql: the kind and the name of a thing that the data need, and the object that needs it."""

    kind: str
    name: str
    of: str
    database: str = ""


def read(lines: Iterable[str], database: str = "") -> list[Need]:
    """Return the needs that the SQL files listed."""
    return [Need(*json.loads(line))._replace(**({"database": database} if database else {})) for line in lines if line]


def problems(major: int, data: Path, needs: Sequence[Need], preloaded: Sequence[str]) -> Iterator[Row]:
    """Yield a row for each need that this server does not meet."""
    for need in needs:
        missing = None
        match need.kind:
            case "library":
                missing = _library(major, need)
            case "extension":
                missing = _preload(major, need, preloaded) or _control_file(major, need)
            case "dictionary":
                missing = _dictionary(major, need)
            case "locale" if not is_locale(need.name):
                missing = missing_locale(need.name, need.of, need.database)
            case "tablespace" if not any((data / "pg_tblspc" / need.name).glob("PG_*")):
                detail = f"The files of tablespace {shown(need.of)} ({need.name}) are not in the upload."
                remedy = (
                    "Upload all files of `pg_basebackup -Ft`, also those with numbers. Or pack the stopped server with "
                    "`tar --dereference`, and upload the archive to a new image."
                )
                missing = Row("tablespace_missing", detail, need.database, need.of, remedy)
        if missing:
            yield missing


def listed(major: int, preloaded: Iterable[str]) -> Iterator[Row]:
    """Yield a row for each library of the operator's list that is not installed, so that no server can start."""
    for name in preloaded:
        if missing := _library(major, Need("library", name, "")):
            detail = (
                f"shared_preload_libraries in /etc/draupnir/config.toml lists {name}, which Postgres {major} lacks."
            )
            yield missing._replace(detail=detail, remedy=f"{missing.remedy} {_OR_REMOVE}")


def refuse(found: Iterable[Row], rows: Rows, *, require_extensions: bool = False) -> None:
    """Report the rows. Raises preflight_failed, which lists all rows that make the image impossible."""
    tolerated = {"room_short"} if require_extensions else {"room_short", *_DISPENSABLE}
    fatal = []
    for row in found:
        rows.add(row.code, row.detail, database=row.database, object=row.object, remedy=row.remedy)
        if row.code not in tolerated and (row.detail, row.remedy) not in fatal:
            fatal.append((row.detail, row.remedy))
    if fatal:
        listed = " ".join(f"{number}. {detail} {remedy}" for number, (detail, remedy) in enumerate(fatal, 1))
        raise JobError("preflight_failed", f"This server lacks what the data need. {listed} {_AGAIN}")


def refuse_locale(message: str, rows: Rows) -> None:
    """Raise preflight_failed if Postgres's message says that a database has a locale that the server lacks."""
    if "database locale is incompatible" in message and (found := _LOCALE.search(message)):
        refuse([missing_locale(found[1], "the databases", "")], rows)


def is_locale(name: str) -> bool:
    """Return whether setlocale(3) knows the locale."""
    before = locale.setlocale(locale.LC_COLLATE)
    try:
        locale.setlocale(locale.LC_COLLATE, name)
    except (locale.Error, ValueError):
        return False
    finally:
        locale.setlocale(locale.LC_COLLATE, before)
    return True


def missing_locale(name: str, of: str, database: str) -> Row:
    """Return the row for a locale that the server lacks."""
    language, _, rest = name.partition(".")
    charset, _, modifier = rest.partition("@")
    charset = "UTF-8" if charset.lower() in {"utf8", "utf-8"} else charset
    source = f"{language}@{modifier}" if modifier else language
    detail = f"The server lacks the locale {shown(name)} of {shown(of)}."
    remedy = "Run `apt install locales-all` on the server."
    if re.fullmatch(r"[a-z]{2,3}(_[A-Z]{2})?(@\w+)?", source, re.ASCII) and _CHARSET.fullmatch(charset):
        remedy = (
            f"Run `apt install locales` and `localedef -i {source} -f {charset} {name}` on the server, or "
            "`apt install locales-all`."
        )
    return Row("locale_missing", detail, database, name, remedy)


def _library(major: int, need: Need) -> Row | None:
    found = re.fullmatch(r"(?:\$libdir/)?([\w+-][\w.+-]*?)(?:\.so)?", need.name, re.ASCII)
    if found is None or postgres.library(major, found[1]).exists():
        return None
    who = f"extension {shown(need.of)}" if need.of else "a function"
    detail = f"The server lacks the library {found[1]} of {who}."
    return Row("library_missing", detail, need.database, need.of or found[1], _package(major, found[1], need.of))


def missing_library(major: int, name: str) -> str:
    """Return how to install a library that the server lacks; "" if it is installed."""
    return "" if postgres.library(major, name).exists() else _package(major, name)


def _package(major: int, *names: str, file: str = "") -> str:
    for name in names:
        suffix = _PACKAGES.get(name) or (name.replace("_", "-") if name in _SAME else None)
        package = f"postgresql-{major}-{suffix}" if suffix else None
        if name in _LANGUAGES:
            package = f"postgresql-{_LANGUAGES[name]}-{major}"
        if package:
            return f"Run `apt install {package}` on the server."
    path = file or f"/usr/lib/postgresql/{major}/lib/{shown(names[0])}.so"
    return f"Install the package that contains {path} on the server."


def _preload(major: int, need: Need, preloaded: Sequence[str]) -> Row | None:
    installed = postgres.library(major, need.name).exists()
    if need.name not in PRELOADED or need.name in preloaded or not installed:
        return None
    code = "preload_required" if need.name in _INDISPENSABLE else "preload_missing"
    detail = f"The extension {need.name} works only if the server loads its library at its start."
    return Row(code, detail, need.database, need.name, allowing(need.name))


def allowing(name: str) -> str:
    """Return how the operator lets images preload an installed library."""
    return f'Add "{name}" to allowed_preload_libraries in /etc/draupnir/config.toml and restart draupnir-helper.'


def _control_file(major: int, need: Need) -> Row | None:
    control = _SHARED / str(major) / "extension" / f"{need.name}.control"
    if "/" in need.name or control.exists():
        return None
    detail = f"The extension {shown(need.name)} is not installed on the server; its objects are in the image."
    return Row(
        "extension_missing", detail, need.database, need.name, _package(major, need.name, file=shown(str(control)))
    )


def _dictionary(major: int, need: Need) -> Row | None:
    option, _, name = need.name.partition("=")
    directory = _SHARED / str(major) / "tsearch_data"
    # A thesaurus has a DictFile, too.
    endings = ("dict", "ths") if option == "dictfile" else (_FILES.get(option),)  # codespell:ignore ths
    if endings == (None,) or "/" in name or any((directory / f"{name.lower()}.{end}").exists() for end in endings):
        return None
    file = f"{directory}/{shown(name.lower())}.{endings[0]}"
    detail = f"The server lacks the file {file} of the text search dictionary {shown(need.of)}."
    remedy = "Copy the file from the source, or install its hunspell package and run `pg_updatedicts`."
    return Row("dictionary_missing", detail, need.database, need.of, remedy)
