"""Valid and invalid requests generated from the OpenAPI document: no unexpected error, no undocumented answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import hypothesis
import pytest
from hypothesis import strategies as st
from starlette.testclient import TestClient

from draupnir.api.limits import Limit
from draupnir.app import create_app
from draupnir.callers import Caller, Role
from draupnir.operations.context import Context
from draupnir.operations.tasks import Tasks
from draupnir.settings import Settings
from draupnir.store import Store
from tests.fakes import CIPHER, FakeHelper, Probe
from tests.sign_in import configured, new_provider

schemathesis = pytest.importorskip("schemathesis")

SHORT, LONG = 300, 10_000
CALLERS = {
    "admin": Caller("root@corp.example", Role.ADMIN),
    "uploader": Caller("upload", Role.UPLOADER),
    "user": Caller("ann@corp.example", Role.USER),
}
# The document describes these only as strings.
HELD_BACK = {"no_room", "unavailable", "helper_unavailable", "metadata_unavailable", "storage_missing"}


def is_forbidden(case: Any) -> bool:
    """Return whether the document does not allow this body."""
    body = case.meta.components.get("body")
    return body is not None and body.mode.is_negative


@dataclass
class World:
    """A service that always has a ready image and an instance of the admin; it counts its answers."""

    http: TestClient
    helper: FakeHelper
    answers: Counter[int] = field(default_factory=Counter)

    def ask(self, method: str, path: str, attributes: Mapping[str, object] | None = None) -> Any:
        body = None if attributes is None else {"data": {"attributes": attributes}}
        return self.http.request(method, path, json=body, headers={"Authorization": "Bearer admin"})

    def ids(self) -> dict[str, int]:
        """Return the ids of existing resources."""
        if not self.helper.disk.images:
            image = {"backed_up_at": "2017-05-01T12:00:00Z", "anonymisation_script": ""}
            image_id = self.ask("POST", "/images", image).json()["data"]["id"]
            self.helper.upload(image_id)
            assert self.ask("POST", f"/images/{image_id}/done").status_code == 200
        image_id = min(self.helper.disk.images)
        if not self.helper.disk.instances:
            assert self.ask("POST", "/instances", {"image_id": image_id}).status_code == 201
        return {"image_id": image_id, "instance_id": min(self.helper.disk.instances)}

    def send(self, case: Any, caller: str, *, existing: bool) -> httpx.Response:
        """Return the generated request, sometimes with an existing id."""
        if existing:
            ids = self.ids()
            case.path_parameters = {**case.path_parameters, **{n: ids[n] for n in case.path_parameters if n in ids}}
            match None if is_forbidden(case) else case.body:
                case {"data": {"attributes": {"image_id": _} as attributes}}:
                    attributes["image_id"] = ids["image_id"]
        sent = case.as_transport_kwargs(base_url="http://testserver")
        given = {**sent["headers"], "Authorization": f"Bearer {caller}"}
        headers = {name.encode("latin-1"): value.encode("latin-1") for name, value in given.items()}
        content = json.dumps(sent["json"]).encode() if "json" in sent else sent.get("data")
        url, params = sent["url"], sent["params"]
        answer = self.http.request(sent["method"], url, params=params, headers=headers, content=content)
        self.answers[answer.status_code] += 1
        return answer


@pytest.fixture
def world(settings: Settings, probe: Probe) -> Iterator[World]:
    async def identify(token: str) -> Caller | None:
        return CALLERS.get(token)

    helper = FakeHelper()
    settings, sign_in = configured(settings.model_copy(update={"enable_ip_whitelisting": True}), new_provider())
    context = Context(
        settings, Store(settings.dsn), helper, Tasks(), probe, helper.wake, cipher=CIPHER, sign_in=sign_in
    )
    app = create_app(context, b"secret")
    app.state.identify = identify
    app.state.limits.sign_ins = Limit(10**6, 0.0)
    app.state.limits._wrong_tokens = Limit(10**6, 0.0)
    with TestClient(app, follow_redirects=False) as http:
        yield World(http, helper)


def cases() -> st.SearchStrategy[Any]:
    """Generate requests to every operation, half of them invalid by the document."""
    from schemathesis.generation import GenerationMode

    from tests.described import DOCUMENT

    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(DOCUMENT)))
    made = []
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            made.append(schema[path][method].as_strategy(generation_mode=GenerationMode.POSITIVE))
            if operation["parameters"] or "requestBody" in operation:
                made.append(schema[path][method].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    return st.one_of(made)


def generate(world: World, count: int, *, derandomize: bool) -> None:
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=derandomize,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(cases(), st.sampled_from([*CALLERS, "admin", "nobody"]), st.booleans())
    def send(case: Any, caller: str, existing: bool) -> None:
        answer = world.send(case, caller, existing=existing)
        # conftest.py validates the answers against the document.
        assert answer.status_code < 500 or answer.json()["errors"][0]["code"] in HELD_BACK, answer.text
        if is_forbidden(case) and answer.request.content:
            assert answer.status_code >= 400, f"{case.method} {case.path} takes {case.body!r}"

    send()
    print(f"{world.answers.total()} requests: {dict(sorted(world.answers.items()))}")


def test_generated_requests_cause_no_unexpected_error_and_match_the_document(world: World) -> None:
    generate(world, SHORT, derandomize=True)
    assert world.answers.total() >= SHORT


@pytest.mark.long
def test_ten_thousand_generated_requests_cause_no_unexpected_error_and_match_the_document(world: World) -> None:
    generate(world, LONG, derandomize=False)
    assert world.answers.total() >= LONG
