"""Writes the table of routes in docs/API.md from the endpoints: `python3 -m draupnir.api.documents`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from draupnir.api.endpoints import ALWAYS, WITH_BODY, WITH_TOKEN, Endpoint
from draupnir.api.openapi import AUDIENCES
from draupnir.api.problems import status_of_kind
from draupnir.api.routes import ENDPOINTS

PATH = Path(__file__).parents[2] / "docs/API.md"
_HEAD = (
    "| method and path | for | attributes or parameters | effect and answer | status |\n"
    "| --- | --- | --- | --- | --- |\n"
)
_TABLE = re.compile(r"(?<=\n\n)\| method and path \|.*?\n(?=\n)", re.DOTALL)
# Almost every route may return these errors; the paragraph below the table lists their statuses.
_USUAL = {*ALWAYS, *WITH_BODY, *WITH_TOKEN}
_UNAVAILABLE = {500, 503}


def rewrite(text: str) -> str:
    """Return the text of docs/API.md with an up-to-date table."""
    table = _HEAD + "".join(_row(each) for each in ENDPOINTS)
    return _TABLE.sub(lambda found: table, text, count=1)


def _row(endpoint: Endpoint) -> str:
    path = re.sub(r"\{\w+\}", "1", endpoint.path)
    refusals = {status_of_kind(kind) for kind in endpoint.errors if kind not in _USUAL} - _UNAVAILABLE
    statuses = ", ".join(str(status) for status in sorted({*endpoint.answers, *refusals}))
    cells = (f"`{endpoint.method} {path}`", AUDIENCES[endpoint.access], "; ".join(_inputs(endpoint)), endpoint.does)
    return f"| {' | '.join(cells)} | {statuses} |\n"


def _inputs(endpoint: Endpoint) -> Iterator[str]:
    body = endpoint.body
    if body is not None and body.attributes.model_fields:
        yield f"`{json.dumps(body.example, ensure_ascii=False)}`" + ("" if body.required else ", or no body")
        more = [f"`{name}`" for name in body.attributes.model_fields if name not in body.example]
        if more:
            yield "also " + ", ".join(more)
    for each in endpoint.parameters:
        yield f"`{each.name}: {each.example}`" if each.place == "header" else f"`?{each.name}={each.example}`"


if __name__ == "__main__":
    PATH.write_text(rewrite(PATH.read_text(encoding="utf-8")), encoding="utf-8")
