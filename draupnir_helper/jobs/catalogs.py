"""Distinguishes the functions that Postgres and its extensions created from those that the data added.

The files of Postgres and of the extensions decide: name, arguments and definition have to match. Oids and
pg_init_privs are data, too, and prove nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from draupnir_helper.jobs import bki
from draupnir_helper.jobs.reports import JobError

# Objects in these schemas stay with the bootstrap superuser, as in ownership.sql.
_SYSTEM_SCHEMAS = ("pg_catalog", "information_schema", "pg_toast")
_INTERNAL_AND_C = ("12", "13")  # these oids are the same in each major
# postgres.bki does not list the functions that initdb creates from these: stemmers, and conversions in 12 and 13.
_LIBRARIES = re.compile(r"\$libdir/(dict_snowball|\w+_and_\w+)")
_CONSTRUCTORS = {
    *("range_constructor2", "range_constructor3"),
    *("multirange_constructor0", "multirange_constructor1", "multirange_constructor2"),
}
_RESTRICTED = re.compile(r"REVOKE\s+(?:ALL|EXECUTE)\s+ON\s+FUNCTION\s+([^;]+?)\s+FROM\s+PUBLIC\s*;", re.IGNORECASE)
_GRANTED = re.compile(r"GRANT\s+EXECUTE\s+ON\s+FUNCTION\s+([^;]+?)\s+TO\s+(pg_\w+)\s*;", re.IGNORECASE)


class Function(NamedTuple):
    """A row of functions.sql, as COPY writes it."""

    oid: str
    bootstrap_owned: str
    member: str
    public: str  # whether a role that is not predefined, or everybody, may call it
    predefined: str  # the predefined roles that may call it
    trusted: str
    argument_oids: str
    language_oid: str
    # The fields below are names, which are equal in all databases with the same extension.
    schema: str
    name: str
    arguments: str
    result: str
    language: str
    source: str
    library: str
    definer: str

    @property
    def definition(self) -> tuple[str, ...]:
        """Return the fields that are equal if two functions of different databases are the same."""
        return self[8:]

    @property
    def code(self) -> tuple[str, ...]:
        """Return the fields that are equal if two names belong to one function: arguments, result and source."""
        return self[10:]


class Verdict(NamedTuple):
    """The oids of functions, by the change that the hand-over makes to them."""

    kept: list[str]  # owned by the bootstrap superuser from now on, and callable by the same roles as before
    closed: list[str]  # likewise owned, and nobody else may call them
    made: list[str]  # created by Postgres or an extension's script, but not in postgres.bki
    powerless: list[str]  # functions of the data that the superuser may call; they will run without rights


def read(lines: Iterable[str]) -> list[Function]:
    """Return the functions that functions.sql listed."""
    return [Function(*line.split("\t")) for line in lines]


def needs_extensions(functions: Iterable[Function]) -> bool:
    """Return whether the verdict depends on the scripts of extensions."""
    return any(each.member == "t" for each in functions)


def refuse_other_versions(major: int, functions: Iterable[Function]) -> None:
    """Raise tampered_catalogs if pg_catalog has another version of a function that our own SQL calls."""
    initdb = built_in(major)
    for each in functions:
        if each.schema == "pg_catalog" and each.name in _called() and not _own(initdb, each) and not _harmless(each):
            raise _tampered(each.name)


def judge(major: int, functions: Iterable[Function], made_by_extensions: Iterable[Function]) -> Verdict:
    """Return the verdict on the functions. Raises tampered_catalogs if a function of Postgres was replaced."""
    initdb = built_in(major)
    made = {each.definition: each for each in made_by_extensions if each.member == "t"}
    functions = list(functions)
    refuse_other_versions(major, functions)
    open_code = _open_code(major, [each for each in functions if _own(initdb, each)], made.values())
    verdict = Verdict([], [], [], [])
    for each in functions:
        own = _own(initdb, each)
        if own:
            replaced = each.source != own[1] and own[0] in _INTERNAL_AND_C
            if replaced or each.language_oid != own[0] or each.definer != "f":
                raise _tampered(each.name)
            if each.bootstrap_owned == "f":
                verdict.kept.append(each.oid)
        elif _harmless(each):
            verdict.made.append(each.oid)
        elif script := made.get(each.definition) if each.member == "t" else None:
            verdict.made.append(each.oid)
            if _powerful(each) and not _as_open(each, script):
                verdict.closed.append(each.oid)
        elif each.trusted == "f" and each.code in open_code:
            verdict.kept.append(each.oid)
        elif _powerful(each):
            # A function in a trusted language, outside of pg_catalog, runs as draupnir after the hand-over.
            if each.trusted == "f" or each.member == "t" or each.schema in _SYSTEM_SCHEMAS:
                verdict.closed.append(each.oid)
        elif each.schema in _SYSTEM_SCHEMAS:
            verdict.powerless.append(each.oid)
    return verdict


def _own(initdb: dict[tuple[str, str], tuple[str, str]], function: Function) -> tuple[str, str] | None:
    return initdb.get((function.name, function.argument_oids)) if function.schema == "pg_catalog" else None


def _powerful(function: Function) -> bool:
    return function.trusted == "f" or function.definer == "t" or function.source == "aggregate_dummy"


def _as_open(function: Function, script: Function) -> bool:
    """Return whether only roles may call the function to which the extension's script grants it."""
    granted, by_script = (set(each.predefined.strip("{}").split(",")) - {""} for each in (function, script))
    return script.public == "t" or (function.public == "f" and granted <= by_script)


def _open_code(major: int, own: Iterable[Function], made: Iterable[Function]) -> set[tuple[str, ...]]:
    """Return the code of Postgres and extensions that PUBLIC may call; another name for it adds no rights."""
    names = {re.sub(r"pg_catalog\.|\(.*", "", each) for each in restricted(major)}
    shut = {each.source for each in own if each.name in names}
    return {each.code for each in own if each.source not in shut} | {each.code for each in made if each.public == "t"}


def _harmless(function: Function) -> bool:
    """Return whether initdb creates the function (a stemmer or conversion), or whether it constructs a range type."""
    if function.definer != "f":
        return False
    if function.language == "internal":
        return function.source in _CONSTRUCTORS
    made_by = (function.schema, function.language) == ("pg_catalog", "c")
    return made_by and _LIBRARIES.fullmatch(function.library) is not None


@cache
def _called() -> frozenset[str]:
    """Return the names of the functions that our own SQL calls."""
    texts = (path.read_text(encoding="utf-8") for path in Path(__file__).with_name("sql").glob("*.sql"))
    return frozenset(name for text in texts for name in re.findall(r"\b([a-z_0-9]+)\(", text))


def _tampered(name: str) -> JobError:
    detail = (
        f"The data replace the function pg_catalog.{name} of Postgres itself. Restore a dump of the source into a new "
        "cluster, and upload a backup of that cluster to a new image."
    )
    return JobError("tampered_catalogs", detail)


@cache
def built_in(major: int) -> dict[tuple[str, str], tuple[str, str]]:
    """Return pg_proc as initdb of that major fills it: (name, oids of arguments) → (oid of the language, source)."""
    pg_proc = bki.catalog(major, "pg_proc")
    name, arguments, language, source = (pg_proc.position(f"pro{each}") for each in ("name", "argtypes", "lang", "src"))
    return {(row[name], row[arguments]): (row[language], row[source]) for row in pg_proc.rows}


@cache
def oids(major: int) -> tuple[str, ...]:
    """Return the oids of the functions that initdb of that major puts into pg_proc."""
    return tuple(row[0] for row in bki.catalog(major, "pg_proc").rows)


@cache
def restricted(major: int) -> tuple[str, ...]:
    """Return the functions that initdb of that major allows only superusers and predefined roles to call."""
    texts = bki.system_scripts(major)
    return tuple(sorted({f"pg_catalog.{found}" for text in texts for found in _RESTRICTED.findall(text)}))


@cache
def permitted(major: int) -> tuple[str, ...]:
    """Return `restricted` as `function=`, and as `function=role` for each predefined role that may call a function."""
    texts = bki.system_scripts(major)
    granted = sorted({f"pg_catalog.{function}={role}" for text in texts for function, role in _GRANTED.findall(text)})
    return (*(f"{each}=" for each in restricted(major)), *granted)
