"""Reads the rows of catalogs from the files of a stopped server, where code of the data cannot hide them.

Only the leading columns of fixed width are read. Every version of a row counts: VACUUM leaves no dead versions, and the
bits that mark a version as dead are data, too. The layout of pages, rows and pg_filenode.map is in storage/bufpage.h,
access/htup_details.h and utils/cache/relmapper.c. It is the same in all majors from 12 on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from draupnir_helper.jobs.bki import Catalog

_PAGE_BYTES = 8192
_PAGE_HEADER_BYTES = 24
_NORMAL = 1  # state of a line pointer
_HAS_NULL = 0x0001
_MAP_MAGIC = 0x592717
_FORMATS = {
    **dict.fromkeys(("oid", "regproc", "xid"), ("I", 4)),
    "bool": ("?", 1),
    "char": ("c", 1),
    "name": ("64s", 1),
    "int2": ("h", 2),
    "int4": ("i", 4),
    "float4": ("f", 4),
}

Row = dict[str, Any]  # column → int, bool or bytes


class DamagedCatalog(Exception):
    """A file of a catalog is missing, or does not have the format of Postgres."""


class _Layout(NamedTuple):
    names: tuple[str, ...]
    values: struct.Struct


class Relations:
    """The catalogs in one directory: those of one database, or the shared ones."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mapped = dict(_read_map(directory / "pg_filenode.map"))
        self._filenodes: dict[int, set[int]] = {}

    def rows(self, catalog: Catalog) -> Iterator[Row]:
        """Return all rows. Raises DamagedCatalog."""
        layout = _layout(catalog)
        try:
            for path in self._files(catalog.oid):
                content = path.read_bytes()
                for start in range(0, len(content), _PAGE_BYTES):
                    for values in _page(content[start : start + _PAGE_BYTES], layout):
                        yield dict(zip(layout.names, values, strict=True))
        except (OSError, struct.error) as error:
            raise DamagedCatalog(str(error)) from error

    def learn(self, pg_class: Catalog) -> None:
        """Read the filenodes of catalogs that pg_filenode.map does not list."""
        for row in self.rows(pg_class):
            self._filenodes.setdefault(row["oid"], set()).add(row["relfilenode"])

    @property
    def mapped(self) -> set[int]:
        """Return the filenodes in pg_filenode.map."""
        return set(self._mapped.values())

    @property
    def learned(self) -> set[int]:
        """Return the filenodes of all relations in pg_class; 0 stands for those in pg_filenode.map."""
        return set[int]().union(*self._filenodes.values())

    def _files(self, oid: int) -> Iterator[Path]:
        filenodes = {self._mapped[oid]} if oid in self._mapped else self._filenodes.get(oid, set())
        if not filenodes:
            raise DamagedCatalog(f"relation {oid} has no filenode")
        for filenode in filenodes:
            yield self._directory / str(filenode)
            yield from self._directory.glob(f"{filenode}.[0-9]*")


def _read_map(path: Path) -> Iterator[tuple[int, int]]:
    try:
        content = path.read_bytes()
        magic, count = struct.unpack_from("<ii", content)
        if magic != _MAP_MAGIC:
            raise DamagedCatalog(f"{path.name} begins with {magic:#x}")
        yield from struct.iter_unpack("<II", content[8 : 8 + 8 * count])
    except (OSError, struct.error) as error:
        raise DamagedCatalog(str(error)) from error


def _layout(catalog: Catalog) -> _Layout:
    names: list[str] = []
    parts = "<"
    for name, kind in catalog.columns:
        if kind not in _FORMATS:
            break
        format_, alignment = _FORMATS[kind]
        parts += "x" * (-struct.calcsize(parts) % alignment) + format_
        names.append(name)
    return _Layout(tuple(names), struct.Struct(parts))


def _page(page: bytes, layout: _Layout) -> Iterator[tuple[Any, ...]]:
    (lower,) = struct.unpack_from("<H", page, 12)
    for at in range(_PAGE_HEADER_BYTES, lower, 4):
        (pointer,) = struct.unpack_from("<I", page, at)
        if pointer >> 15 & 3 != _NORMAL:
            continue
        start = pointer & 0x7FFF
        infomask, header_bytes = struct.unpack_from("<HB", page, start + 20)
        if infomask & _HAS_NULL:
            present = int.from_bytes(page[start + 23 : start + 31], "little")
            if ~present & ((1 << len(layout.names)) - 1):
                raise DamagedCatalog("a column that is never null is null")
        yield layout.values.unpack_from(page, start + header_bytes)
