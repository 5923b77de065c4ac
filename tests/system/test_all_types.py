"""Stored bytes of masked columns of all types are in no file of an image, whatever the proof itself can search for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.backups import Source
from tests.system.service import Service

ROWS = 40
LEAST_BYTES = 7  # shorter ones are in every file
NUMBER = "('x' || substr(md5({seed} || i), 1, 15))::bit(60)::bigint"
TEXT = "md5({seed} || i)"
LONG = "(SELECT string_agg(md5({seed} || i || '-' || j), ' ') FROM generate_series(1, {length}) j)"
# Type → a value of row i that is different in each row and column.
VALUES = {
    "bigint": NUMBER,
    "double precision": f"({NUMBER})::float8 / 3",
    "numeric": f"({NUMBER})::numeric * 1000003 / 7",
    "money": f"({NUMBER} / 1000)::numeric::money",
    "text": TEXT,
    "varchar(40)": TEXT,
    "char(40)": TEXT,
    "name": TEXT,
    "bytea": f"decode({TEXT}, 'hex')",
    "uuid": f"{TEXT}::uuid",
    "json": f"json_build_object('key', {TEXT})",
    "jsonb": f"jsonb_build_object('key', {TEXT}, 'list', jsonb_build_array({TEXT}, {NUMBER}))",
    "xml": f"('<a>' || {TEXT} || '</a>')::xml",
    "text[]": f"ARRAY[{TEXT}, 'same']",
    "bigint[]": f"ARRAY[{NUMBER}, 1]",
    "uuid[]": f"ARRAY[{TEXT}::uuid]",
    "jsonb[]": f"ARRAY[to_jsonb({TEXT})]",
    "timestamptz": f"to_timestamp(({NUMBER} % 4000000000)::float8 / 3)",
    "timestamp": f"to_timestamp(({NUMBER} % 4000000000)::float8 / 3)::timestamp",
    "time": f"time '00:00' + ({NUMBER} % 86400000)::float8 / 1000 * interval '1 second'",
    "timetz": f"(time '00:00' + ({NUMBER} % 86400000)::float8 / 1000 * interval '1 second')::timetz",
    "interval": f"({NUMBER} % 100000000000)::float8 / 7 * interval '1 second'",
    "inet": f"host(inet '2001:db8::' + ({NUMBER} / 4))::inet",
    "cidr": f"set_masklen(inet '2001:db8::' + ({NUMBER} / 4), 128)::cidr",
    "macaddr": f"substr({TEXT}, 1, 12)::macaddr",
    "macaddr8": f"substr({TEXT}, 1, 16)::macaddr8",
    "bit(60)": f"('x' || substr({TEXT}, 1, 15))::bit(60)",
    "bit varying": f"('x' || {TEXT})::bit(128)",
    "point": f"point(({NUMBER})::float8, ({NUMBER})::float8 / 7)",
    "line": f"line(point(0, ({NUMBER})::float8), point(1, ({NUMBER})::float8 / 7))",
    "lseg": f"lseg(point(0, ({NUMBER})::float8), point(1, 1))",
    "box": f"box(point(0, ({NUMBER})::float8), point(1, 1))",
    "path": f"path(polygon(box(point(0, ({NUMBER})::float8), point(1, 1))))",
    "polygon": f"polygon(box(point(0, ({NUMBER})::float8), point(1, 1)))",
    "circle": f"circle(point(({NUMBER})::float8, 1), 2)",
    "tsvector": f"to_tsvector('simple', {TEXT})",
    "tsquery": f"to_tsquery('simple', {TEXT})",
    "int8range": f"int8range(0, {NUMBER})",
    "numrange": f"numrange(0, ({NUMBER})::numeric * 1000003)",
    "tstzrange": f"tstzrange(to_timestamp(({NUMBER} % 4000000000)::float8 / 3), NULL)",
    "int8multirange": f"int8multirange(int8range(0, {NUMBER}))",
    "pg_lsn": f"'0/0'::pg_lsn + ({NUMBER})::numeric",
    "txid_snapshot": f"({NUMBER} || ':' || {NUMBER} || ':')::txid_snapshot",
    "citizen": f"({TEXT}, {NUMBER})::citizen",
    "letters": f"{TEXT}::letters",
    "hstore": f"hstore('key', {TEXT})",
    "citext": TEXT,
    "ltree": f"({TEXT} || '.a')::ltree",
    # Compressed in the row, in the TOAST table, and there without compression.
    "text stored compressed": "repeat(md5({seed} || i) || ' ', 70)",
    "text stored outside": LONG.replace("{length}", "300"),
    "text stored outside plain": LONG.replace("{length}", "300"),
    "jsonb stored outside": f"jsonb_build_object('key', {LONG.replace('{length}', '300')})",
}
INDEXES = {
    "text": ("btree", "hash", "spgist"),
    "uuid": ("btree",),
    "box": ("gist",),
    "jsonb": ("gin",),
    "bigint": ("brin",),
}
COLUMNS = {f"c{number}": kind for number, kind in enumerate(VALUES)}
CONTENT = "\n".join(
    (
        "CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION pageinspect;",
        "CREATE TYPE citizen AS (name text, number bigint); CREATE DOMAIN letters AS text;",
        "CREATE TABLE everything (id int PRIMARY KEY);",
        *(f"ALTER TABLE everything ADD {name} {kind.partition(' stored')[0]};" for name, kind in COLUMNS.items()),
        *(f"ALTER TABLE everything ALTER {name} SET STORAGE EXTERNAL;"
          for name, kind in COLUMNS.items() if kind == "text stored outside plain"),
        "INSERT INTO everything SELECT i"
        + "".join(", " + VALUES[kind].replace("{seed}", f"'{name}'") for name, kind in COLUMNS.items())
        + f" FROM generate_series(1, {ROWS}) i;",
        *(f"CREATE INDEX ON everything USING {method} ({name});" for name, kind in COLUMNS.items()
          for method in INDEXES.get(kind, ())),
        "VACUUM ANALYZE everything; CHECKPOINT;",
    )
)  # fmt: skip
STORED = """
SELECT DISTINCT encode(value, 'hex')
  FROM pg_class, unnest(ARRAY['everything', reltoastrelid::regclass::text]) relation,
       generate_series(0, pg_relation_size(relation) / 8192 - 1) page,
       heap_page_item_attrs(get_raw_page(relation, page::int), relation::regclass), unnest(t_attrs) value
 WHERE relname = 'everything' AND length(value) >= 7
"""
SCRIPT = "\\c my_db\nUPDATE everything SET " + ", ".join(f"{name} = NULL" for name in COLUMNS) + ";"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    made = Source.empty(tmp_path_factory.mktemp("types"), "--locale=C.UTF-8")
    made.start()
    made.sql("CREATE DATABASE my_db", "postgres")
    made.script(CONTENT)
    return made


@pytest.fixture(scope="module")
def needles(source: Source) -> list[bytes]:
    """Return the values as they are in the pages of the table and its TOAST table, without the heads of long ones."""
    found = [bytes.fromhex(line) for line in source.value(STORED).split()]
    source.stop()
    # Pointers to TOAST tables do not count, and the head of a value has only its size. grep reads patterns as lines.
    values = {(value if len(value) <= 8 else value[-64:]) for value in found if not value.startswith(b"\x01\x12")}
    pieces = {max(value.split(b"\n"), key=len) for value in values}
    return [piece for piece in pieces if len(piece.strip(b"\0")) >= LEAST_BYTES]


@pytest.fixture(scope="module")
def masked(service: Service, source: Source, needles: list[bytes]) -> Iterator[int]:
    image_id = service.create_image(SCRIPT)
    service.upload(image_id, source.tarball("types.tar.zst", "--zstd"))
    answer = service.finalise(image_id)
    assert answer.status_code == 200, answer.text
    yield image_id
    service.destroy_image(image_id)


def found_in(directory: Path, needles: list[bytes], tmp_path: Path) -> set[bytes]:
    (tmp_path / "needles").write_bytes(b"\n".join(needles) + b"\n")
    command = ["grep", "-rohaF", "-f", str(tmp_path / "needles"), str(directory)]
    found = subprocess.run(command, capture_output=True, env={"LC_ALL": "C"}, check=False)
    assert found.returncode in {0, 1}, found.stderr
    return {*found.stdout.split(b"\n")} - {b""}


def test_no_file_contains_a_stored_value_of_any_type(
    source: Source, needles: list[bytes], masked: int, tmp_path: Path
) -> None:
    assert len(COLUMNS) >= 50
    assert len(needles) >= ROWS * len(COLUMNS)
    found = found_in(source.data, needles, tmp_path)
    assert len(found) > 0.9 * len(needles), "the source has them, so the search works"
    assert found_in(Path(f"/srv/draupnir/image_snapshots/{masked}"), needles, tmp_path) == set()
