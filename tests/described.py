"""Validates answers against the OpenAPI document: status, code and body, without unknown attributes."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from typing import Any

import httpx
import jsonschema

from draupnir.api import openapi
from draupnir.api.routes import ENDPOINTS

# Requests without an endpoint return these.
ELSEWHERE = {400: {"invalid_http"}, 404: {"not_found"}, 405: {"method_not_allowed"}, 503: {"unavailable"}}


def close(schema: Any) -> None:
    """Forbid properties that the document does not list."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for each in schema.values():
            close(each)
    elif isinstance(schema, list):
        for each in schema:
            close(each)


DOCUMENT: Any = openapi.describe(ENDPOINTS)
CLOSED = deepcopy(DOCUMENT["components"])
close(CLOSED)
BY_PATH = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", each.path)), each) for each in ENDPOINTS]


@cache
def validator(path: str, method: str, status: int, kind: str) -> jsonschema.Draft202012Validator:
    """A validator for one kind of body of one answer."""
    content = DOCUMENT["paths"][path][method.lower()]["responses"][str(status)]["content"]
    return jsonschema.Draft202012Validator({**content[kind]["schema"], "components": CLOSED})


def check_answer(answer: httpx.Response) -> None:
    """Fails if the document does not have this answer to that request."""
    request = f"{answer.request.method} {answer.request.url.path}"
    method = "GET" if answer.request.method == "HEAD" else answer.request.method
    found = [each for pattern, each in BY_PATH if pattern.fullmatch(answer.request.url.path) and each.method == method]
    if not found:
        told = {error["code"] for error in answer.json()["errors"]} if answer.content else set()
        assert told <= ELSEWHERE[answer.status_code], f"{request} answers {answer.status_code} with {told}"
        return
    operation = DOCUMENT["paths"][found[0].path][method.lower()]
    assert str(answer.status_code) in operation["responses"], f"{request} answers {answer.status_code}: {answer.text}"
    content = operation["responses"][str(answer.status_code)].get("content", {})
    kind = answer.headers.get("content-type", "").partition(";")[0]
    assert (kind in content) if kind else not content, (
        f"{request} answers {answer.status_code} with {kind or 'nothing'}"
    )
    if kind != "application/json" or answer.request.method == "HEAD":
        return
    body = answer.json()
    validator(found[0].path, method, answer.status_code, kind).validate(body)
    if answer.status_code >= 400:
        told, codes = {error["code"] for error in body["errors"]}, found[0].codes()[answer.status_code]
        assert told <= codes, f"{request} answers {answer.status_code} with {told}, not one of {codes}"
