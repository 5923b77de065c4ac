"""Samples the values of all columns before the script, and finds those that the script removed.

The statements contain hashes of the values, so that no value gets into a file of the server.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from draupnir_helper.jobs import needles
from draupnir_helper.jobs.clusters import Cluster
from draupnir_helper.jobs.residues import Changed, files_of
from draupnir_helper.jobs.sessions import in_each

_COLUMNS = Path(__file__).with_name("sql") / "columns.sql"
_ROWS = 20_000  # of all tables of a database
_ROWS_OF_TABLE = range(2, 129)
_ROWS_OF_PAGE = 8
_VALUES_OF_COLUMN = 20
_MOST_BYTES = 8192  # a larger value is searched for in its TOAST table
_MOST_CHARACTERS = 4000
# A string of JSON has the same bytes in the file, if none of them is escaped.
_SOURCES = {
    "array": "unnest({column})::text",
    "bytes": "encode({column}, 'hex')",
    "json": r"""(regexp_matches({column}::text, '"([^"\\]{{8,}})"', 'g'))[1]""",
    "numeric": "{column}::text",
    "text": "{column}::text",
    "uuid": "{column}::text",
}


class Column(NamedTuple):
    """A column as columns.sql lists it; `relation`, `column` and `key` are quoted, `names` are not."""

    table: int
    number: int
    kind: str
    root: int
    filenode: int
    pages: int
    relation: str
    column: str
    names: tuple[str, str, str]
    key: tuple[str, ...]


class Original(NamedTuple):
    """A value of the source: its text, the hash of the text and of the row's primary key, and its bytes in a file."""

    column: Column
    value: bytes
    hash: int
    key: int | None
    needle: bytes


class Removed(NamedTuple):
    """An original that its column does not contain any more, and the quoted name of its table, if that still exists."""

    database: str
    original: Original
    relation: str | None


def columns(cluster: Cluster, database: str) -> list[Column]:
    """Return the columns of all tables."""
    listed = map(json.loads, filter(None, cluster.run_files(database, _COLUMNS)))
    return [Column(**{**each, "names": tuple(each["names"]), "key": tuple(each["key"])}) for each in listed]


def sample(cluster: Cluster, databases: Mapping[str, int]) -> dict[str, list[Original]]:
    """Sample the values of each database that are evidence. The files of the databases must be up to date."""
    found = in_each(databases, lambda database: _sample(cluster, database, databases[database]))
    return dict(zip(databases, found, strict=True))


def removed(
    cluster: Cluster, originals: Mapping[str, Sequence[Original]], changed: Mapping[str, Changed]
) -> list[Removed]:
    """Return the originals that their columns do not contain any more. Tables that nobody changed are not read."""
    kept = [database for database in originals if database in changed]
    found = in_each(kept, lambda database: list(_removed(cluster, database, originals[database], changed[database])))
    dropped = [
        Removed(database, each, None)
        for database, values in originals.items()
        if database not in changed
        for each in values
    ]
    return [each for part in found for each in part] + dropped


def present(cluster: Cluster, database: str, wanted: Mapping[Column, Iterable[int]]) -> dict[Column, set[int]]:
    """Return which of these hashes the columns contain."""
    ordered = list(wanted)
    statements = [
        f"SELECT {number}, h FROM {column.relation} t CROSS JOIN LATERAL ({_source(column)}) s(v)"  # noqa: S608 - quoted
        f""" CROSS JOIN LATERAL hashtextextended(v COLLATE "C", 0) h WHERE h = ANY ('{array(wanted[column])}')"""
        " GROUP BY 1, 2;"
        for number, column in enumerate(ordered)
    ]
    found: dict[Column, set[int]] = {column: set() for column in ordered}
    for number, value in answers(cluster, database, statements):
        found[ordered[int(number)]].add(int(value))
    return found


def keys(cluster: Cluster, database: str, relation: str, key: Sequence[str], hashes: Iterable[int]) -> set[int]:
    """Return which of these hashes of primary keys the table contains."""
    statement = f"SELECT h FROM {relation} t CROSS JOIN LATERAL ({_key(key)}) k(h)"  # noqa: S608 - quoted
    return {int(value) for (value,) in answers(cluster, database, [f"{statement} WHERE h = ANY ('{array(hashes)}');"])}


def answers(cluster: Cluster, database: str, statements: Iterable[str]) -> Iterator[list[str]]:
    """Run our own statements in one session; yield their rows. A statement that fails has no rows."""
    path = cluster.directory / f"statements-{secrets.token_hex(4)}.sql"
    path.write_text("\n".join(statements), encoding="utf-8", errors="surrogateescape")
    try:
        # For example, the page of a value may be damaged. Then other values are searched for.
        lines = cluster.run_files(database, path, ON_ERROR_STOP="0")
    finally:
        path.unlink()
    yield from (line.split("|") for line in lines if line)


def array(hashes: Iterable[int]) -> str:
    """Return a Postgres array literal."""
    return "{" + ",".join(map(str, hashes)) + "}"


def _sample(cluster: Cluster, database: str, oid: int) -> list[Original]:
    stored = [column for column in columns(cluster, database) if column.kind and column.pages]
    tables: dict[tuple[int, str], list[Column]] = {}
    for column in stored:
        tables.setdefault((column.table, column.relation), []).append(column)
    rows = max(_ROWS_OF_TABLE[0], min(_ROWS // max(1, len(tables)), _ROWS_OF_TABLE[-1]))
    paths = files_of(oid)
    found: dict[Column, list[Original]] = {column: [] for column in stored}
    by_id = {(column.table, column.number): column for column in stored}
    statements = [_statement(within, rows) for within in tables.values()]
    for table, number, page, item, size_bytes, key, hashed, value in answers(cluster, database, statements):
        column = by_id[int(table), int(number)]
        text = bytes.fromhex(value)
        needle = needles.compressed(paths.get(column.filenode, ()), int(page), int(item), int(size_bytes))
        needle = needle or needles.of_value(column.kind, text)
        found[column].append(Original(column, text, int(hashed), int(key) if key else None, needle or b""))
    return [each for values in found.values() for each in _distinct(values)]


def _distinct(values: Sequence[Original]) -> Iterator[Original]:
    """Yield the evidence of one column, as many values as it may have. Frequent values are no evidence."""
    counts = Counter(each.hash for each in values)
    evidence = [each for each in values if counts[each.hash] == 1 and needles.window(each.needle)]
    yield from evidence[:: -(-len(evidence) // _VALUES_OF_COLUMN) or 1]


class _Now:
    """The columns after the script, which may have replaced a table by another one with its name."""

    def __init__(self, found: Iterable[Column]) -> None:
        self._columns: dict[tuple[object, ...], Column] = {}
        for each in found:
            self._columns[each.table, each.number] = each
            if each.number:
                self._columns[each.names] = self._columns[each.table, each.column] = each
                self._columns[each.names[:2]] = self._columns[each.table, None] = each

    def column(self, before: Column) -> Column | None:
        """Return the column of the same table, or of its partitioned table, because rows may move within it."""
        found = self._columns.get((before.table, before.number))
        if found is None and before.number:
            found = self._columns.get(before.names)
        if found is None or found.root == found.table:
            return found
        return self._columns.get((found.root, found.column))

    def relation(self, before: Column) -> str | None:
        """Return the quoted name of the table, if it still exists."""
        found = self._columns.get((before.table, None)) or self._columns.get(before.names[:2])
        return found.relation if found else None


def _removed(cluster: Cluster, database: str, originals: Sequence[Original], changed: Changed) -> Iterator[Removed]:
    touched = {*changed.tables, *changed.catalogs}
    suspects = [each for each in originals if each.column.table in touched or each.column.table not in changed.present]
    if not suspects:
        return
    now = _Now(columns(cluster, database))
    places = {column: now.column(column) for column in {each.column for each in suspects}}
    wanted: dict[Column, set[int]] = {}
    for each in suspects:
        if (column := places[each.column]) is not None and column.kind:
            wanted.setdefault(column, set()).add(each.hash)
    live = present(cluster, database, wanted)
    for each in suspects:
        column = places[each.column]
        if column is None or each.hash not in live.get(column, ()):
            yield Removed(database, each, now.relation(each.column))


def _statement(within: Sequence[Column], rows: int) -> str:
    """Return the query for values of some rows of one table, on pages that are spread over the table."""
    relation, pages, key = within[0].relation, within[0].pages, within[0].key
    items = min(rows, _ROWS_OF_PAGE)
    step = max(1, pages * items // rows)
    sources = " UNION ALL ".join(
        f"SELECT {column.number}, pg_column_size(t.{column.column}), v FROM ({_source(column)}) s(v)"  # noqa: S608 - quoted
        for column in within
    )
    return (
        f"SELECT {within[0].table}, number, split_part(btrim(t.ctid::text, '()'), ',', 1),"  # noqa: S608 - quoted
        f" split_part(btrim(t.ctid::text, '()'), ',', 2), size, h, hashtextextended(v COLLATE \"C\", 0),"
        f" encode(convert_to(v, getdatabaseencoding()), 'hex')"
        f" FROM ONLY {relation} t CROSS JOIN LATERAL ({sources}) s(number, size, v)"
        f" CROSS JOIN LATERAL ({_key(key)}) k(h)"
        f" WHERE t.ctid = ANY (ARRAY(SELECT format('(%s,%s)', page, item)::tid"
        f" FROM generate_series(0, {pages - 1}, {step}) page, generate_series(1, {items}) item))"
        f" AND length(v) <= {_MOST_CHARACTERS};"
    )


def _source(column: Column) -> str:
    """Return the query for the texts of the value of a column in the row t."""
    values = _SOURCES[column.kind].format(column=f"t.{column.column}")
    return f"SELECT {values} WHERE pg_column_size(t.{column.column}) <= {_MOST_BYTES}"


def _key(key: Sequence[str]) -> str:
    if not key:
        return "SELECT NULL::bigint"
    return f"SELECT hashtextextended(concat_ws(chr(31), {', '.join(f't.{name}' for name in key)}), 0)"
