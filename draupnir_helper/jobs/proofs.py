"""Proves that no file of an image contains what the script removed: samples values before it, and searches after it.

Sampled values are evidence, no proof of the others. They are only in the memory of the job and in its /tmp.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from draupnir_helper import postgres
from draupnir_helper.jobs import canaries, declarations, findings, originals, relations, searches
from draupnir_helper.jobs.clusters import Cluster
from draupnir_helper.jobs.declarations import Place
from draupnir_helper.jobs.originals import Original, Removed
from draupnir_helper.jobs.residues import Changed
from draupnir_helper.jobs.rows import Rows

_DROPPED_ATTRIBUTES = Path(__file__).with_name("sql") / "dropped_attributes.sql"
_ATTRIBUTES = "The type lost an attribute. Rows with the type may still contain the values of that attribute."
_CAST = "Rewrite the columns of the type in the script, for example with UPDATE t SET c = c::text::mytype."
_MOST = 20_000  # values in one search


class Proof:
    """The proof of one image."""

    def __init__(self, cluster: Cluster, script: str, order: Mapping[str, Any], rows: Rows) -> None:
        """`order` has the canaries, and whether anything else is searched for. Raises script_failed."""
        self._cluster = cluster
        self._declared = declarations.read(script)
        self._canaries = [canary.encode() for canary in order["canaries"]]
        self._is_sampling = not order["keep_residue"]
        self._rows = rows
        self._originals: dict[str, list[Original]] = {}
        self._removed: dict[bytes, list[Removed]] = {}
        self._relations: relations.Relations = {}

    def sample(self, databases: Mapping[str, int]) -> None:
        """Sample values before the script. Its files must be up to date."""
        if self._is_sampling:
            self._originals = originals.sample(self._cluster, databases)

    def compare(self, databases: Mapping[str, int], changed: Mapping[str, Changed]) -> None:
        """Find the values to search for, when the script and the rewriting are done. Raises script_failed."""
        removed = originals.removed(self._cluster, self._originals, changed)
        self._require_declared(databases)
        for each in removed[:: -(-len(removed) // _MOST) or 1]:
            self._removed.setdefault(each.original.needle, []).append(each)
        for database in databases:
            for name in filter(None, self._cluster.run_files(database, _DROPPED_ATTRIBUTES)):
                self._rows.add(
                    "attributes_dropped", _ATTRIBUTES, database=database, object=json.loads(name), remedy=_CAST
                )
        if self._removed or self._canaries:
            self._relations = relations.read(self._cluster, databases)

    def search(self, running: Callable[[], AbstractContextManager[None]]) -> None:
        """Search the files of the stopped server, which runs again in the block `running`, if there are hits.

        Raises canary_found, residue_found and value_kept.
        """
        data, kept = Path(postgres.PGDATA), dict[bytes, set[Place]]()
        while True:
            wanted = [*self._canaries, *(value for value in self._removed if value not in kept)]
            hits = searches.search(data, self._cluster.directory, wanted)
            paths = sorted({hit.path for hit in hits if hit.value in self._canaries})
            canaries.require_absent(self._canaries, paths, self._relations, self._rows)
            if not hits:
                break
            with running():
                kept |= findings.judge(self._cluster, hits, self._removed, self._relations, self._declared)
        if self._is_sampling:
            self._report(kept)

    def _require_declared(self, databases: Mapping[str, int]) -> None:
        existing = [
            Place(database, *column.names)
            for database in {place.database for place in self._declared} & databases.keys()
            for column in originals.columns(self._cluster, database)
            if column.number
        ]
        declarations.require_existing(self._declared, existing)

    def _report(self, kept: Mapping[bytes, Set[Place]]) -> None:
        for place in self._declared:
            count = sum(place in places for places in kept.values())
            detail = f"The column keeps {count} sampled values that the script removed elsewhere, as it declares."
            names = ".".join((place.schema, place.table, place.column))
            self._rows.add("values_kept", detail, database=place.database, object=names)
        sampled = {each.column for found in self._originals.values() for each in found}
        count = sum(map(len, self._originals.values()))
        also = f" Columns still contain {len(kept)} more." if kept else ""
        self._rows.add(
            "originals_absent",
            f"{count} values of {len(sampled)} columns were sampled before the script. It removed "
            f"{len(self._removed) - len(kept)} of them, and no file of the image contains one.{also} The search cannot "
            "see short or frequent values, words, dates and small numbers.",
        )
