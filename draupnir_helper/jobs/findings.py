"""Judges the files in which the search found a removed value: raw bytes, or a value that another column keeps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from draupnir_helper.jobs import originals, relations
from draupnir_helper.jobs.clusters import Cluster
from draupnir_helper.jobs.declarations import Place
from draupnir_helper.jobs.originals import Removed
from draupnir_helper.jobs.relations import Relations
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.searches import Hit

_CONTENTS = Path(__file__).with_name("sql") / "contents.sql"
_AT_ONCE = 50
_NAMED = 3
_STATISTICS = ("pg_statistic", "pg_statistic_ext_data")

Table = tuple[str, int]  # database and oid


class _Content(NamedTuple):
    table: int
    relation: str
    column: str
    names: tuple[str, str, str]


def judge(
    cluster: Cluster,
    hits: Sequence[Hit],
    removed: Mapping[bytes, Sequence[Removed]],
    named: Relations,
    declared: Iterable[Place],
) -> dict[bytes, set[Place]]:
    """Return the values that may stay, with the columns that contain them.

    The script declares these columns, or it deleted the rows that the values were sampled from.

    The messages name places, and no value. Raises residue_found and value_kept.
    """
    tables = _tables(hits, named)
    kept = _places(cluster, tables, removed)
    deleted = _deleted(cluster, [each for value in {hit.value for hit in hits} for each in removed[value]])
    undeclared: dict[tuple[str, str], None] = {}
    found: dict[bytes, set[Place]] = {}
    for hit in hits:
        within = kept.get(hit.value, {})
        relation = relations.of_path(named, hit.path)
        repeats = relation is not None and relation.name.rpartition(".")[2] in _STATISTICS and within
        if not repeats and (relation is None or (relation.database, relation.table) not in within):
            raise JobError("residue_found", _residue(removed[hit.value][0], relations.described(named, hit.path)))
        places = found[hit.value] = {place for each in within.values() for place in each}
        for origin in removed[hit.value]:
            if origin not in deleted:
                undeclared |= {(str(_place(origin)), str(place)): None for place in sorted(places - {*declared})}
    if undeclared:
        raise JobError("value_kept", _kept([*undeclared]))
    return found


def _tables(hits: Iterable[Hit], named: Relations) -> dict[Table, list[bytes]]:
    """Return the values to look for in each table of a hit."""
    found: dict[Table, dict[bytes, None]] = {}
    for hit in hits:
        if (relation := relations.of_path(named, hit.path)) is not None:
            found.setdefault((relation.database, relation.table), {})[hit.value] = None
    return {table: [*values] for table, values in found.items()}


def _places(
    cluster: Cluster, tables: Mapping[Table, Sequence[bytes]], removed: Mapping[bytes, Sequence[Removed]]
) -> dict[bytes, dict[Table, set[Place]]]:
    """Return the columns in which a query finds the values, by value and table.

    Whole values are found by their hash. To find the others within longer ones takes more time, so only some of the
    values are looked for in that way if all of them are found as whole values.
    """
    found: dict[bytes, dict[Table, set[Place]]] = {}

    def note(value: bytes, table: Table, names: tuple[str, str, str]) -> None:
        found.setdefault(value, {}).setdefault(table, set()).add(Place(table[0], *names))

    for database in {database for database, _ in tables}:
        within = {oid: values for (name, oid), values in tables.items() if name == database}
        columns = [each for each in originals.columns(cluster, database) if each.kind and each.table in within]
        hashes = {
            oid: {o.original.hash: value for value in values for o in removed[value]} for oid, values in within.items()
        }
        for column, live in originals.present(
            cluster, database, {each: hashes[each.table] for each in columns}
        ).items():
            for each in live if column.number else ():
                note(hashes[column.table][each], (database, column.table), column.names)
        contents = _contents(cluster, database, within)
        statements: list[str] = []
        asked: list[tuple[bytes, _Content]] = []
        for content in contents:
            table = database, content.table
            missing = [value for value in within[content.table] if table not in found.get(value, ())]
            values = [*dict.fromkeys((*missing, *within[content.table][:_AT_ONCE]))]
            for start in range(0, len(values), _AT_ONCE):
                batch = values[start : start + _AT_ONCE]
                statements.append(_containing(content, len(asked), batch, removed))
                asked += [(value, content) for value in batch]
        for number, is_whole in originals.answers(cluster, database, statements):
            value, content = asked[int(number)]
            if is_whole == "t":
                note(value, (database, content.table), content.names)
            else:
                found.setdefault(value, {}).setdefault((database, content.table), set())
    return found


def _contents(cluster: Cluster, database: str, tables: Iterable[int]) -> list[_Content]:
    lines = cluster.run_files(database, _CONTENTS, tables=originals.array(tables))
    return [_Content(**{**each, "names": tuple(each["names"])}) for each in map(json.loads, filter(None, lines))]


def _containing(
    content: _Content, first: int, values: Sequence[bytes], removed: Mapping[bytes, Sequence[Removed]]
) -> str:
    """Return the query for the numbers of the values that a column contains as text, or in hexadecimal as bytes.

    The second column is false if each occurrence is a part of a longer word or number, such as 12 of 123.
    """
    rows = []
    for number, value in enumerate(values, first):
        text = f"convert_from('\\x{removed[value][0].original.value.hex()}', getdatabaseencoding())"
        rows += [f"({number}, {text}, true)", f"({number}, '{value.hex()}', false)"]
    pattern = r"""'(^|[^[:alnum:]])' || regexp_replace(v, '([^[:alnum:]])', '\\\1', 'g') || '($|[^[:alnum:]])'"""
    column = f't.{content.column}::text COLLATE "C"'
    return (
        f"SELECT number, bool_or(NOT is_text OR {column} ~ ({pattern})) FROM {content.relation} t"  # noqa: S608 - quoted
        f" JOIN (VALUES {', '.join(rows)}) wanted(number, v, is_text) ON strpos({column}, v) > 0 GROUP BY 1;"
    )


def _deleted(cluster: Cluster, removed: Iterable[Removed]) -> set[Removed]:
    """Return those whose row does not exist any more. Without a primary key only an empty table shows that."""
    found = {each for each in removed if each.relation is None}
    grouped: dict[tuple[str, str], list[Removed]] = {}
    for each in removed:
        if each.relation is not None:
            grouped.setdefault((each.database, each.relation), []).append(each)
    for (database, relation), group in grouped.items():
        if not [*originals.answers(cluster, database, [f"SELECT 1 FROM {relation} LIMIT 1;"])]:  # noqa: S608 - quoted
            found |= {*group}
            continue
        for key in {each.original.column.key for each in group} - {()}:
            keyed = [each for each in group if each.original.column.key == key]
            hashes = {each.original.key for each in keyed if each.original.key is not None}
            live = originals.keys(cluster, database, relation, key, hashes)
            found |= {each for each in group if each.original.key in hashes and each.original.key not in live}
    return found


def _place(removed: Removed) -> Place:
    return Place(removed.database, *removed.original.column.names)


def _residue(removed: Removed, file: str) -> str:
    return (
        f"The script removed a value of {_place(removed)}, but {file} still contains it, and no query finds it. So the "
        "image is not published. Finalise again. If it fails again, report a bug, and let the script DROP or TRUNCATE "
        "the table."
    )


def _kept(pairs: Sequence[tuple[str, str]]) -> str:
    named = "; ".join(f"{origin} lost values that {place} contains" for origin, place in pairs[:_NAMED])
    more = f"; and {len(pairs) - _NAMED} more pairs" if len(pairs) > _NAMED else ""
    return (
        f"The script removed values from one column, and another column keeps them: {named}{more}. Remove them there, "
        f"too. If that column keeps them on purpose, add the line `-- draupnir: keeps {pairs[0][1]}` to the script. "
        "Then finalise again."
    )
