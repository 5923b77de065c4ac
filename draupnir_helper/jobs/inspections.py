"""Compares the catalogs of the stopped server with those that initdb creates, and with what the server reported.

Code of the data can falsify the answers of a running server, but not its files. A difference fails the image with
tampered_catalogs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from draupnir_helper import postgres
from draupnir_helper.jobs import bki
from draupnir_helper.jobs.catalogs import Function
from draupnir_helper.jobs.heaps import DamagedCatalog, Relations, Row
from draupnir_helper.jobs.reports import JobError

_BOOTSTRAP = 10
_PG_CATALOG = 11
_FIRST_ORDINARY = 16384
_BOUNDED_CREATEROLE = 16  # from this major on, CREATEROLE covers only roles that its holder administers
# pg_monitor, pg_read_all_settings, pg_read_all_stats, pg_read_all_data and pg_write_all_data may have members.
_MONITOR = 3373
_PERMITTED = {_MONITOR, 3374, 3375, 6181, 6182}
_OF_MONITOR = {3374, 3375, 3377}
# powerless.sql gives functions to pg_signal_backend.
_POWERLESS = 4200
_INTERNAL_AND_C = (12, 13)
_DEFAULT_TABLESPACE = 1663
# Rows belong to Postgres if initdb created them, or by this column of the catalog: it is a namespace, or it references
# another catalog, whose namespace decides.
_CALLERS = {
    "pg_aggregate": ("aggfnoid", "pg_proc"),
    "pg_am": ("", ""),
    "pg_amproc": ("amprocfamily", "pg_opfamily"),
    "pg_conversion": ("connamespace", ""),
    "pg_operator": ("oprnamespace", ""),
    "pg_proc": ("pronamespace", ""),
    "pg_range": ("rngtypid", "pg_type"),
    "pg_ts_parser": ("prsnamespace", ""),
    "pg_ts_template": ("tmplnamespace", ""),
    "pg_type": ("typnamespace", ""),
}
_NAMESPACES = {"pg_proc": "pronamespace", "pg_opfamily": "opfnamespace", "pg_type": "typnamespace"}
_OTHERS = ("pg_amop", "pg_cast", "pg_language", "pg_opclass", "pg_opfamily")
# These columns decide with whose rights code runs. An owner may change others, such as leakproof.
_DECISIVE = {"prosecdef", "lanpltrusted"}
_POWERS = ("rolsuper", "rolreplication", "rolbypassrls")


class Judged(NamedTuple):
    """The report of the server about one database, and the verdict on it."""

    listed: Mapping[int, Function]
    closed: frozenset[int]
    trusted: frozenset[int]  # made by Postgres and extensions


def inspect(data: Path, major: int, judged: Mapping[int, Judged]) -> None:
    """Raise tampered_catalogs if the files contradict the server; `judged` has each database by its oid."""
    try:
        shared = Relations(data / "global")
        faults = [*_roles(shared, major)]
        for database in shared.rows(bki.catalog(major, "pg_database")):
            expected = judged.get(database["oid"])
            if expected is None:
                faults.append("a database that the server did not list")
                continue
            relations = Relations(database_directory(data, database))
            relations.learn(bki.catalog(major, "pg_class"))
            faults += _database(relations, major, expected)
    except DamagedCatalog as error:
        raise tampered(["files of catalogs that cannot be read"], str(error)) from error
    if faults:
        raise tampered(sorted(set(faults)))


def tampered(what: list[str], private: str = "") -> JobError:
    """Return the failure for catalogs that differ from those of Postgres and its extensions."""
    detail = (
        f"The data change the catalogs of Postgres itself ({', '.join(what[:8])}). Restore a dump of the source into a "
        "new cluster, and upload a backup of that cluster to a new image."
    )
    return JobError("tampered_catalogs", detail, private)


def database_directory(data: Path, database: Row) -> Path:
    """Return the directory of a row of pg_database. Raises DamagedCatalog if it does not exist."""
    if database["dattablespace"] == _DEFAULT_TABLESPACE:
        return data / "base" / str(database["oid"])
    found = list(data.glob(f"pg_tblspc/{database['dattablespace']}/PG_*/{database['oid']}"))
    if len(found) != 1:
        raise DamagedCatalog(f"no directory of database {database['oid']}")
    return found[0]


def _roles(shared: Relations, major: int) -> Iterator[str]:
    """Yield roles that have, or could get, more rights than SQL gives.

    The only superuser cannot log in. Reserved roles have no direct members, so they have no indirect ones.
    """
    predefined = {int(row[0]): row[1].encode() for row in bki.catalog(major, "pg_authid").rows}
    predefined.pop(_BOOTSTRAP)
    reserved, group = set[int](), set[int]()
    for role in shared.rows(bki.catalog(major, "pg_authid")):
        oid, name = role["oid"], role["rolname"].rstrip(b"\0")
        is_group = name == postgres.SUPERUSERS.encode()
        if oid < _FIRST_ORDINARY or name.startswith(b"pg_") or is_group:
            reserved.add(oid)
        if is_group:
            group.add(oid)
        if predefined.get(oid, name) != name:
            yield "pg_authid.rolname"
        if oid != _BOOTSTRAP and any(role[power] for power in _POWERS):
            yield "pg_authid: a role with powers"
        if role["rolcreaterole"] and oid != _BOOTSTRAP and (major < _BOUNDED_CREATEROLE or oid in reserved):
            yield "pg_authid.rolcreaterole"
        if role["rolcanlogin"] and oid in reserved:
            yield "pg_authid.rolcanlogin"
    yield from _memberships(shared, major, reserved, group)


def _memberships(shared: Relations, major: int, reserved: set[int], group: set[int]) -> Iterator[str]:
    superusers = set[tuple[int, bool]]()
    for row in shared.rows(bki.catalog(major, "pg_auth_members")):
        role, member = row["roleid"], row["member"]
        if role in group:
            superusers.add((member, row["admin_option"]))
        elif member == _MONITOR and role in _OF_MONITOR:
            continue  # as initdb makes them
        elif role in reserved - _PERMITTED or member in reserved - {_BOOTSTRAP}:
            yield "pg_auth_members"
    if len(group) != 1 or superusers != {(_BOOTSTRAP, False)}:
        yield f"pg_auth_members: {postgres.SUPERUSERS}"


def _database(relations: Relations, major: int, judged: Judged) -> Iterator[str]:
    rows = {name: list(relations.rows(bki.catalog(major, name))) for name in (*_CALLERS, *_OTHERS)}
    for name in rows:
        yield from _unlike_initdb(name, bki.catalog(major, name), rows[name])
    yield from _unlike_listed(rows["pg_proc"], judged)
    yield from _foreign_calls(major, rows, judged)
    if any(row["evtenabled"] != b"D" for row in relations.rows(bki.catalog(major, "pg_event_trigger"))):
        yield "pg_event_trigger.evtenabled"


def _unlike_initdb(name: str, catalog: bki.Catalog, rows: list[Row]) -> Iterator[str]:
    """Yield columns of initdb's rows that reference another object than after initdb, or that decide about rights."""
    key = catalog.columns[0][0]
    initdb = {row[0]: row for row in catalog.rows}
    compared = [
        (index, column, kind)
        for index, (column, kind) in enumerate(catalog.columns)
        if kind in {"oid", "regproc"} or column in _DECISIVE
    ]
    for row in rows:
        for index, column, kind in compared if str(row[key]) in initdb else ():
            wanted = initdb[str(row[key])][index]
            found = "ft"[row[column]] if kind == "bool" else str(row[column])
            if found != wanted and (found, wanted) != ("0", "-"):
                yield f"{name}.{column}"


def _unlike_listed(rows: list[Row], judged: Judged) -> Iterator[str]:
    """Yield functions that the server should have listed and did not, or listed differently from its files."""
    for row in rows:
        listed = judged.listed.get(row["oid"])
        # The owner of a function matters only if the function has extra rights.
        definer = row["prosecdef"] and row["proowner"] != _POWERLESS
        if listed is None:
            if row["pronamespace"] == _PG_CATALOG or definer or row["prolang"] in _INTERNAL_AND_C:
                yield "pg_proc: a function that the server did not list"
        elif str(row["prolang"]) != listed.language_oid or definer > (listed.definer == "t"):
            yield "pg_proc: a function that the server listed as another"
        elif definer and row["proowner"] == _BOOTSTRAP and row["oid"] not in judged.trusted - judged.closed:
            yield "pg_proc.prosecdef"


def _foreign_calls(major: int, rows: Mapping[str, list[Row]], judged: Judged) -> Iterator[str]:
    """Yield columns in which an object of Postgres calls a function that is neither Postgres's nor an extension's.

    Operators and casts of the data are allowed if the functions they call run without rights.
    """
    own = {0, *judged.trusted} - judged.closed  # 0 means no function
    powerless = {row["oid"] for row in rows["pg_proc"] if row["proowner"] == _POWERLESS and row["prosecdef"]}
    own_or_powerless = own | powerless
    system = {
        name: {row["oid"] for row in rows[name] if row[namespace] == _PG_CATALOG}
        for name, namespace in _NAMESPACES.items()
    }
    for name, (column, points_to) in _CALLERS.items():
        calls = [each for each, kind in bki.catalog(major, name).columns if kind == "regproc" and each != "aggfnoid"]
        for row in rows[name]:
            is_own = not column or (row[column] in system[points_to] if points_to else row[column] == _PG_CATALOG)
            if name == "pg_amproc":
                # Postgres's families may have functions for types of the data, which only values of such types call.
                is_own &= {row["amproclefttype"], row["amprocrighttype"]} <= system["pg_type"]
            for call in calls if is_own else ():
                allowed = own_or_powerless if call == "oprcode" else own
                if row.get(call, 0) not in allowed:
                    yield f"{name}.{call}"
    for row in rows["pg_cast"]:
        if {row["castsource"], row["casttarget"]} <= system["pg_type"] and row["castfunc"] not in own_or_powerless:
            yield "pg_cast.castfunc"
