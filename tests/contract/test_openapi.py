"""The OpenAPI document: valid, public, with all codes, and the source of docs/API.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

import draupnir
from draupnir.api import documents
from draupnir.api.routes import ENDPOINTS
from draupnir.app import create_app
from draupnir.errors import FAILURE_CODES, DraupnirError
from draupnir.operations.context import Context
from draupnir.operations.tasks import Tasks
from draupnir.settings import Settings
from draupnir.store import Store
from tests.fakes import CIPHER, FakeHelper, Probe

ROOT = Path(__file__).parents[2]
# The code of a base class.
NEVER_ANSWERED = {"impossible"}


@pytest.fixture
def http(settings: Settings, helper: FakeHelper, probe: Probe) -> Iterator[TestClient]:
    context = Context(settings, Store(settings.dsn), helper, Tasks(), probe, helper.wake, cipher=CIPHER)
    with TestClient(create_app(context, b"secret")) as client:
        yield client


def test_anybody_may_read_and_keep_the_document(http: TestClient) -> None:
    answer = http.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["cache-control"].startswith("public, max-age=")
    document = answer.json()
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == draupnir.__version__
    assert {(method.upper(), path) for path, item in document["paths"].items() for method in item} == {
        (each.method, each.path) for each in ENDPOINTS
    }


def test_a_public_validator_accepts_the_document(http: TestClient) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(http.get("/openapi.json").json())


def kinds(of: type[DraupnirError] = DraupnirError) -> Iterator[type[DraupnirError]]:
    yield of
    for each in of.__subclasses__():
        yield from kinds(each)


def test_the_document_has_every_code_of_the_service(http: TestClient) -> None:
    document = http.get("/openapi.json").json()
    listed = set(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"])
    ours = {each.code for each in kinds() if each.__module__.startswith("draupnir.")}
    assert ours - NEVER_ANSWERED <= listed
    assert listed >= FAILURE_CODES


def calls(names: set[str], folder: str) -> Iterator[str]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield first.value


def test_every_failure_code_of_an_image_is_known() -> None:
    found = {*calls({"JobError"}, "draupnir_helper/jobs"), *calls({"ImageFailed", "Failure"}, "draupnir")}
    assert found == FAILURE_CODES


def test_the_table_in_the_documents_is_made_from_the_endpoints() -> None:
    text = documents.PATH.read_text(encoding="utf-8")
    assert documents.rewrite(text) == text, "run python3 -m draupnir.api.documents"


def answered(status: int, body: object) -> httpx.Response:
    return httpx.Response(status, json=body, request=httpx.Request("GET", "http://testserver/health_check"))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"status": "ok", "more": 1}),
        (200, {"status": "fine"}),
        (200, {}),
        (404, {"errors": [{"status": "404", "code": "not_found", "title": "", "detail": ""}]}),
        (500, {"errors": [{"status": "500", "code": "not_found", "title": "", "detail": ""}]}),
    ],
)
def test_an_answer_that_the_document_lacks_is_noticed(status: int, body: object) -> None:
    pytest.importorskip("jsonschema")
    from tests.described import check_answer

    check_answer(answered(200, {"status": "ok", "disk": "low"}))
    with pytest.raises(Exception, match=r"answers|Additional|expected|required"):
        check_answer(answered(status, body))
