"""The HTTP contract: the brief's requests and answers, every error code, and arbitrary requests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

import hypothesis
import pytest
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.testclient import TestClient

from draupnir.api.bodies import MAX_BODY_BYTES, MAX_SCRIPT_BODY_BYTES
from draupnir.api.limits import Limit
from draupnir.app import create_app
from draupnir.callers import Caller, Role
from draupnir.operations.context import Context
from draupnir.operations.tasks import Tasks
from draupnir.settings import Settings
from draupnir.store import Store
from draupnir_helper.wire import (
    MAX_ID,
    ErrorCode,
    Inspect,
    Inspection,
    InstanceState,
    JobKind,
    JobReport,
    JobState,
    Memory,
    Observed,
    ObserveInstances,
    StartExtract,
)
from tests.fakes import CIPHER, FakeHelper, Probe, Refused
from tests.sign_in import configured, new_provider

SECRET = "a-secret-for-tests-only"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"

# The brief's original bodies, except that the backslash of \c is escaped for JSON.
SEED_IMAGE = r"""{
  "data": {
    "type": "images",
    "attributes": {
      "backed_up_at": "2017-05-01T12:00:00Z",
      "anonymisation_script": "\\c my_db\nDELETE FROM secret_tokens;"
    }
  }
}"""
SEED_INSTANCE = """{
  "data": {
    "type": "instances",
    "attributes": {
      "image_id": 1
    }
  }
}"""
SCRIPT = "\\c my_db\nDELETE FROM secret_tokens;"


@pytest.fixture
def app(settings: Settings, helper: FakeHelper, probe: Probe) -> Starlette:
    """Provide the application with a separate store, which its lifespan opens in the test client's event loop."""
    return create_app(
        Context(settings, Store(settings.dsn), helper, Tasks(), probe, helper.wake, cipher=CIPHER), SECRET.encode()
    )


@pytest.fixture
def client(app: Starlette) -> Iterator[TestClient]:
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
    with TestClient(app, headers=headers) as client:
        yield client


def the_error(response: Any, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    (error,) = response.json()["errors"]
    assert error["status"] == str(status)
    assert error["code"] == code
    assert error["title"]
    return str(error["detail"])


def make_image(client: TestClient) -> int:
    response = client.post("/images", content=SEED_IMAGE)
    assert response.status_code == 201, response.text
    return int(response.json()["data"]["id"])


def make_ready_image(client: TestClient, helper: FakeHelper) -> int:
    image_id = make_image(client)
    helper.upload(image_id)
    response = client.post(f"/images/{image_id}/done")
    assert response.status_code == 200, response.text
    return image_id


def make_instance(client: TestClient, image_id: int) -> int:
    response = client.post("/instances", json={"data": {"attributes": {"image_id": image_id}}})
    assert response.status_code == 201, response.text
    return int(response.json()["data"]["id"])


def is_time(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(TIME, value) is not None


def test_requests_and_answers_match_the_brief_word_for_word(client: TestClient, helper: FakeHelper) -> None:
    created = client.post("/images", content=SEED_IMAGE)
    assert created.status_code == 201
    assert created.headers["content-type"] == "application/json"
    image = created.json()["data"]
    image_id = image["id"]
    assert image["type"] == "images"
    assert type(image_id) is int
    assert image["attributes"]["backed_up_at"] == "2017-05-01T12:00:00Z"
    assert is_time(image["attributes"]["created_at"])
    assert is_time(image["attributes"]["updated_at"])
    assert image["attributes"]["ready"] is False

    helper.upload(image_id)
    done = client.post(f"/images/{image_id}/done")
    assert done.status_code == 200
    assert (done.json()["data"]["type"], done.json()["data"]["id"]) == ("images", image_id)
    assert done.json()["data"]["attributes"]["ready"] is True
    assert done.json()["data"]["attributes"]["backed_up_at"] == "2017-05-01T12:00:00Z"

    listed = client.get("/images")
    assert listed.status_code == 200
    assert [each["type"] for each in listed.json()["data"]] == ["images"]
    assert listed.json()["data"][0]["attributes"]["anonymisation_script"] == SCRIPT

    shown = client.get(f"/images/{image_id}")
    assert shown.status_code == 200
    assert shown.json()["data"] == listed.json()["data"][0]

    created = client.post("/instances", content=SEED_INSTANCE.replace("1", str(image_id)))
    assert created.status_code == 201
    instance = created.json()["data"]
    assert instance["type"] == "instances"
    assert isinstance(instance["id"], int)
    assert instance["attributes"]["image_id"] == image_id
    assert isinstance(instance["attributes"]["port"], str)
    assert instance["attributes"]["port"].isdecimal()
    assert is_time(instance["attributes"]["created_at"])
    assert is_time(instance["attributes"]["updated_at"])

    listed = client.get("/instances")
    assert listed.status_code == 200
    (only,) = listed.json()["data"]
    assert (only["type"], only["id"]) == ("instances", instance["id"])
    assert only["attributes"]["port"] == instance["attributes"]["port"]

    shown = client.get(f"/instances/{instance['id']}")
    assert shown.status_code == 200
    assert shown.json()["data"]["attributes"]["image_id"] == image_id

    destroyed = client.delete(f"/instances/{instance['id']}")
    assert (destroyed.status_code, destroyed.content) == (204, b"")
    destroyed = client.delete(f"/images/{image_id}")
    assert (destroyed.status_code, destroyed.content) == (204, b"")
    assert client.get("/images").json() == {"data": []}
    assert client.get("/instances").json() == {"data": []}


def test_the_list_of_images_has_only_the_beginning_of_a_long_script(client: TestClient) -> None:
    script = "-- é\n" * 20_000
    made = client.post(
        "/images",
        json={"data": {"attributes": {"backed_up_at": "2017-05-01T12:00:00Z", "anonymisation_script": script}}},
    )
    (listed,) = client.get("/images").json()["data"]
    assert listed["attributes"]["anonymisation_script"] == script[:8192]
    assert listed["attributes"]["anonymisation_script_truncated"] is True
    shown = client.get(f"/images/{made.json()['data']['id']}").json()["data"]["attributes"]
    assert shown["anonymisation_script"] == script
    assert "anonymisation_script_truncated" not in shown


def test_the_illegal_escape_of_the_brief_gets_advice(client: TestClient) -> None:
    response = client.post("/images", content=SEED_IMAGE.replace("\\\\c", "\\c"))
    detail = the_error(response, 400, "invalid_json")
    assert "line 6, column 32" in detail
    assert "write \\\\c" in detail
    assert client.get("/images").json() == {"data": []}


def test_the_content_type_of_a_request_does_not_matter(client: TestClient) -> None:
    for kind in ("application/x-www-form-urlencoded", "application/vnd.api+json", ""):
        assert client.post("/images", content=SEED_IMAGE, headers={"Content-Type": kind}).status_code == 201


def test_credentials_are_shown_for_one_instance_and_never_in_a_list(client: TestClient, helper: FakeHelper) -> None:
    image_id = make_ready_image(client, helper)
    created = client.post("/instances", json={"data": {"attributes": {"image_id": str(image_id)}}})
    shown = client.get(f"/instances/{created.json()['data']['id']}")
    for response in (created, shown):
        credentials = response.json()["data"]["attributes"]["credentials"]
        assert credentials.keys() == {"ca_certificate", "client_certificate", "client_key", "client_pkcs12", "user"}
        assert credentials["user"] == "draupnir"
        assert "PRIVATE KEY" in credentials["client_key"]
        assert response.headers["cache-control"] == "no-store"
    assert "PRIVATE KEY" not in client.get("/instances").text


def test_respond_async_is_answered_at_once(client: TestClient, helper: FakeHelper) -> None:
    image_id = make_image(client)
    helper.upload(image_id)
    response = client.post(f"/images/{image_id}/done", headers={"Prefer": "wait=5, Respond-Async"})
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    attributes = response.json()["data"]["attributes"]
    assert attributes["status"] == "finalising"
    assert attributes["progress"].keys() == {"step", "activity", "done_bytes", "total_bytes", "seconds"}
    waited = client.post(f"/images/{image_id}/done")
    assert waited.json()["data"]["attributes"]["ready"] is True
    again = client.post(f"/images/{image_id}/done", headers={"Prefer": "respond-async"})
    assert again.status_code == 200


def test_an_image_is_changed_only_before_it_is_finalised(client: TestClient, helper: FakeHelper) -> None:
    image_id = make_image(client)
    change = {"data": {"type": "images", "id": str(image_id), "attributes": {"anonymisation_script": "SELECT 1"}}}
    changed = client.patch(f"/images/{image_id}", json=change)
    assert changed.status_code == 200
    assert changed.json()["data"]["attributes"]["anonymisation_script"] == "SELECT 1"
    assert changed.json()["data"]["attributes"]["backed_up_at"] == "2017-05-01T12:00:00Z"
    helper.upload(image_id)
    assert client.post(f"/images/{image_id}/done").status_code == 200
    the_error(client.patch(f"/images/{image_id}", json=change), 409, "wrong_state")


def test_an_empty_change_is_refused(client: TestClient) -> None:
    image_id = make_image(client)
    before = client.get(f"/images/{image_id}").json()
    nothing: list[dict[str, object]] = [{}, {"ready": True}, {"backed_up_at": None}, {"anonymisation_script": 1}]
    for attributes in nothing:
        response = client.patch(f"/images/{image_id}", json={"data": {"attributes": attributes}})
        the_error(response, 400, "invalid_request")
    assert client.get(f"/images/{image_id}").json() == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/images/{}"),
        ("PATCH", "/images/{}"),
        ("DELETE", "/images/{}"),
        ("POST", "/images/{}/done"),
        ("GET", "/instances/{}"),
        ("DELETE", "/instances/{}"),
    ],
)
def test_a_missing_resource_is_not_found(client: TestClient, method: str, path: str) -> None:
    body = {"data": {"attributes": {"anonymisation_script": ""}}}
    for id_ in ("1", "0", "-1", "x", "1.0", "01", str(MAX_ID), str(MAX_ID + 1), "9" * 40, "%00", "é"):
        the_error(client.request(method, path.format(id_), json=body), 404, "not_found")


def test_an_instance_of_a_missing_image_is_not_found(client: TestClient) -> None:
    for image_id in (1, MAX_ID, MAX_ID + 1, 10**30):
        response = client.post("/instances", json={"data": {"attributes": {"image_id": image_id}}})
        the_error(response, 404, "not_found")


@pytest.mark.parametrize(
    ("asked", "shape"),
    [
        ({}, (1800, "proxied")),
        ({"sleep_after": 0}, (0, "proxied")),
        ({"sleep_after": 2592000, "network": "proxied"}, (2592000, "proxied")),
        ({"network": "direct"}, (0, "direct")),
        ({"network": "direct", "sleep_after": 60}, (0, "direct")),
    ],
)
def test_the_shape_of_an_instance_is_chosen_at_creation(
    client: TestClient, helper: FakeHelper, asked: dict[str, object], shape: tuple[int, str]
) -> None:
    attributes = {"image_id": make_ready_image(client, helper), **asked}
    created = client.post("/instances", json={"data": {"attributes": attributes}})
    assert created.status_code == 201
    instance_id = created.json()["data"]["id"]
    shown = client.get(f"/instances/{instance_id}").json()["data"]
    (listed,) = client.get("/instances").json()["data"]
    for instance in (created.json()["data"], shown, listed):
        assert (instance["attributes"]["sleep_after"], instance["attributes"]["network"]) == shape
    started = helper.disk.started[instance_id]
    assert (started.sleep_after_s, started.direct) == (shape[0], shape[1] == "direct")


def test_the_default_idle_timeout_is_the_configured_one(settings: Settings, helper: FakeHelper, probe: Probe) -> None:
    other = settings.model_copy(update={"sleep_after_s": 600})
    context = Context(other, Store(other.dsn), helper, Tasks(), probe, helper.wake, cipher=CIPHER)
    with TestClient(create_app(context, SECRET.encode()), headers={"Authorization": f"Bearer {SECRET}"}) as client:
        image_id = make_ready_image(client, helper)
        for asked, got in ({}, 600), ({"sleep_after": 1800}, 1800), ({"network": "direct"}, 0):
            created = client.post("/instances", json={"data": {"attributes": {"image_id": image_id, **asked}}})
            assert created.status_code == 201
            data = created.json()["data"]
            assert data["attributes"]["sleep_after"] == helper.disk.started[data["id"]].sleep_after_s == got


def test_an_instance_above_the_quota_is_refused_without_retry_after(
    settings: Settings, helper: FakeHelper, probe: Probe
) -> None:
    other = settings.model_copy(update={"max_instances_per_user": 1})
    context = Context(other, Store(other.dsn), helper, Tasks(), probe, helper.wake, cipher=CIPHER)
    with TestClient(create_app(context, SECRET.encode()), headers={"Authorization": f"Bearer {SECRET}"}) as client:
        image_id = make_ready_image(client, helper)
        only = make_instance(client, image_id)
        response = client.post("/instances", json={"data": {"attributes": {"image_id": image_id}}})
        assert f": {only}. Destroy an unused one" in the_error(response, 429, "too_many_instances")
        assert "Retry-After" not in response.headers


NO_SECONDS: list[object] = [-1, 2592001, 10**30, 1.5, "60", "10m", "never", True, None, [], {}]
NO_NETWORKS: list[object] = ["host", "Direct", "", "proxied ", 1, True, None, [], {}]


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("sleep_after", each) for each in NO_SECONDS), *(("network", each) for each in NO_NETWORKS)],
)
def test_an_invalid_shape_is_refused_by_name(client: TestClient, helper: FakeHelper, name: str, value: object) -> None:
    attributes = {"image_id": make_ready_image(client, helper), name: value}
    response = client.post("/instances", json={"data": {"attributes": attributes}})
    assert f"`data.attributes.{name}` must be " in the_error(response, 400, "invalid_request")
    assert client.get("/instances").json() == {"data": []}


@pytest.mark.parametrize("status", ["running", "asleep", "failed", "unknown"])
def test_the_status_of_an_instance_is_the_observed_one(client: TestClient, helper: FakeHelper, status: str) -> None:
    instance_id = make_instance(client, make_ready_image(client, helper))

    def see(request: object) -> Observed:
        if status == "unknown":
            raise Refused(ErrorCode.BUSY)
        postgres = {"running": "active", "asleep": "inactive", "failed": "failed"}[status]
        state = InstanceState(instance_id=instance_id, listening=True, postgres=postgres)
        return Observed(instance_units=[state], written=[], room=None)

    helper.answers[ObserveInstances] = see
    shown = client.get(f"/instances/{instance_id}").json()["data"]
    (listed,) = client.get("/instances").json()["data"]
    assert (shown["attributes"]["status"], listed["attributes"]["status"]) == (status, status)


def test_an_instance_of_an_image_that_is_not_ready_is_refused(client: TestClient) -> None:
    body = SEED_INSTANCE.replace("1", str(make_image(client)))
    the_error(client.post("/instances", content=body), 422, "image_not_ready")


def test_an_image_with_instances_is_destroyed_only_with_them_over_http(client: TestClient, helper: FakeHelper) -> None:
    image_id = make_ready_image(client, helper)
    instance_id = make_instance(client, image_id)
    the_error(client.delete(f"/images/{image_id}"), 422, "image_has_instances")
    the_error(client.delete(f"/images/{image_id}?cascade=maybe"), 400, "invalid_request")
    assert client.get(f"/instances/{instance_id}").status_code == 200
    assert client.delete(f"/images/{image_id}?cascade=true").status_code == 204
    the_error(client.get(f"/instances/{instance_id}"), 404, "not_found")
    the_error(client.get(f"/images/{image_id}"), 404, "not_found")


def test_destroying_twice_is_not_found(client: TestClient, helper: FakeHelper) -> None:
    image_id = make_ready_image(client, helper)
    instance_id = make_instance(client, image_id)
    for path in (f"/instances/{instance_id}", f"/images/{image_id}"):
        assert client.delete(path).status_code == 204
        the_error(client.delete(path), 404, "not_found")


def test_a_body_at_the_limit_is_read_and_one_above_it_is_not(client: TestClient) -> None:
    frame = json.dumps({"data": {"attributes": {"backed_up_at": "2017-05-01T12:00:00Z", "anonymisation_script": ""}}})
    room = MAX_SCRIPT_BODY_BYTES - len(frame)
    fits, too_large = (frame.replace('script": "', f'script": "{"x" * length}') for length in (room, room + 1))
    assert client.post("/images", content=fits).status_code == 201
    the_error(client.post("/images", content=too_large), 413, "body_too_large")

    def chunks() -> Iterator[bytes]:
        yield from (b" " * 65536 for _ in range(17))

    the_error(client.post("/images", content=chunks()), 413, "body_too_large")


@pytest.mark.parametrize(
    "path", ["/instances", "/instances/1/restart", "/instances/1/addresses", "/tokens", "/sign_ins"]
)
def test_only_a_body_with_a_script_may_be_long(client: TestClient, path: str) -> None:
    body = json.dumps({"data": {"attributes": {}}})
    at_the_limit = client.post(path, content=body + " " * (MAX_BODY_BYTES - len(body)))
    assert at_the_limit.status_code in {400, 404, 422}
    the_error(client.post(path, content=body + " " * MAX_BODY_BYTES), 413, "body_too_large")


def test_another_caller_has_separate_instances(app: Starlette, client: TestClient, helper: FakeHelper) -> None:
    image_id = make_ready_image(client, helper)
    callers = {name: Caller(name, Role.USER) for name in ("alice", "bob")}

    async def identify(token: str) -> Caller | None:
        return callers.get(token)

    app.state.identify = identify
    alice, bob = ({"Authorization": f"Bearer {name}"} for name in callers)
    created = client.post("/instances", json={"data": {"attributes": {"image_id": image_id}}}, headers=alice)
    assert created.status_code == 201
    assert created.json()["data"]["attributes"]["owner"] == "alice"
    path = f"/instances/{created.json()['data']['id']}"
    assert client.get("/instances", headers=bob).json() == {"data": []}
    the_error(client.get(path, headers=bob), 404, "not_found")
    the_error(client.delete(path, headers=bob), 404, "not_found")
    the_error(client.get(path), 401, "unauthorized")
    assert client.delete(path, headers=alice).status_code == 204


def test_the_service_is_healthy_if_all_parts_answer(client: TestClient) -> None:
    response = client.get("/health_check", headers={"Authorization": ""})
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}


def test_the_part_that_does_not_answer_is_named(client: TestClient, helper: FakeHelper) -> None:
    helper.away = True
    response = client.get("/health_check")
    assert "The helper is away." in the_error(response, 503, "unavailable")
    assert response.json()["status"] == "unavailable"
    assert response.json()["parts"] == {"metadata": "ok", "helper": "The helper is away."}


def test_a_helper_without_its_disk_is_unhealthy(client: TestClient, helper: FakeHelper) -> None:
    helper.answers[Inspect] = lambda request: Inspection(
        storage=None,
        memory=Memory(total_bytes=2, available_bytes=1),
        postgres_majors=[17],
        systemd_version="257",
        filters_addresses=True,
    )
    response = client.get("/health_check")
    assert response.status_code == 503
    assert "not mounted" in response.json()["parts"]["helper"]


def test_the_service_serves_and_reports_unavailable_metadata(settings: Settings, helper: FakeHelper) -> None:
    nowhere = settings.model_copy(update={"database_url": "host=/nonexistent dbname=x"})
    away = create_app(Context(nowhere, Store(nowhere.dsn), helper, Tasks()), SECRET.encode())
    with TestClient(away, headers={"Authorization": f"Bearer {SECRET}"}) as client:
        assert client.get("/health_check").json()["parts"].keys() == {"metadata", "helper"}
        assert client.get("/health_check").json()["parts"]["helper"] == "ok"
        the_error(client.get("/images"), 503, "metadata_unavailable")


def test_finalising_before_anything_was_uploaded_is_refused(client: TestClient) -> None:
    image_id = make_image(client)
    the_error(client.post(f"/images/{image_id}/done"), 409, "nothing_uploaded")
    assert client.get(f"/images/{image_id}").json()["data"]["attributes"]["status"] == "awaiting_upload"


@pytest.mark.parametrize(("code", "status"), [("script_failed", 422), ("truncated_archive", 422), ("no_room", 507)])
def test_a_failed_finalise_is_answered_and_shown_with_its_reason(
    client: TestClient, helper: FakeHelper, code: str, status: int
) -> None:
    helper.outcomes[JobKind.EXTRACT] = JobState.FAILED
    helper.reports[JobKind.EXTRACT] = JobReport(error_code=code, error="It went wrong at line 3.")
    image_id = make_image(client)
    helper.upload(image_id)
    detail = the_error(client.post(f"/images/{image_id}/done"), status, code)
    assert "at line 3" in detail
    attributes = client.get(f"/images/{image_id}").json()["data"]["attributes"]
    assert (attributes["status"], attributes["ready"]) == ("failed", False)
    assert attributes["error"] == {"code": code, "detail": detail}


def test_instances_beyond_the_number_of_ports_are_refused(
    client: TestClient, helper: FakeHelper, settings: Settings
) -> None:
    image_id = make_ready_image(client, helper)
    for _ in settings.instance_ports:
        make_instance(client, image_id)
    response = client.post("/instances", json={"data": {"attributes": {"image_id": image_id}}})
    the_error(response, 422, "no_free_port")


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (ErrorCode.NO_ROOM, 507, "no_room"),
        (ErrorCode.STORAGE_MISSING, 503, "storage_missing"),
        (ErrorCode.BUSY, 503, "helper_unavailable"),
    ],
)
def test_a_refusal_of_the_helper_reaches_the_caller(
    client: TestClient, helper: FakeHelper, refusal: ErrorCode, status: int, code: str
) -> None:
    image_id = make_image(client)
    helper.upload(image_id)

    def refuse(request: object) -> NoReturn:
        raise Refused(refusal)

    helper.answers[StartExtract] = refuse
    the_error(client.post(f"/images/{image_id}/done"), status, code)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["1", "", "\x00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "backed_up_at": JSON
        | st.sampled_from(["2017-05-01T12:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]),
        "anonymisation_script": JSON | st.text(st.characters()),
        "image_id": JSON | st.integers(-1, 3) | st.sampled_from([MAX_ID, MAX_ID + 1, 2**31, 2**63, 2**64]),
        "sleep_after": JSON | st.sampled_from([0, 60, 2**63]),
        "network": JSON | st.sampled_from(["proxied", "direct"]),
        "ready": JSON,
        "code_challenge": JSON | st.just("A" * 43),
        "loopback_port": JSON | st.integers(0, 65536),
        "code": JSON | st.text(st.characters()),
        "code_verifier": JSON | st.just("A" * 43),
        "name": JSON | st.text(st.characters()),
        "scope": JSON | st.sampled_from(["full", "read_only"]),
        "expires_in": JSON | st.integers(0, 366 * 24 * 3600 + 1),
    },
)
DOCUMENTS = JSON | st.fixed_dictionaries(
    {},
    optional={
        "data": JSON | st.fixed_dictionaries({"attributes": JSON | ATTRIBUTES}, optional={"id": JSON, "type": JSON})
    },
)
BODIES = st.binary(max_size=60) | DOCUMENTS.map(lambda document: json.dumps(document).encode())
ESCAPED = st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(lambda text: quote(text, safe="/"))
IDS = st.sampled_from(["1", "2", "0", "x", str(MAX_ID), str(2**31), str(2**63)]) | ESCAPED
PAGES = ["/authenticate", "/oauth_callback"]
SIGN_IN = [*PAGES, "/authenticate?sign_in=x", "/oauth_callback?state=x&error=y", "/sign_ins", "/sessions", "/tokens"]
PATHS = st.sampled_from(["/images", "/instances", "/health_check", *SIGN_IN]) | st.builds(
    "{}{}{}".format,
    st.sampled_from(["/images/", "/instances/", "/tokens/", "/"]),
    IDS,
    st.sampled_from(["", "/done", "/", "?cascade=true"]),
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"])
HEADER_VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)
HEADERS = st.dictionaries(
    st.sampled_from(["Prefer", "X-Request-Id", "Content-Type", "Accept", "Authorization"]), HEADER_VALUES, max_size=2
)


@pytest.fixture
def everything(settings: Settings, helper: FakeHelper, probe: Probe) -> Iterator[TestClient]:
    """Provide the service with sign-in and without rate limits."""
    signed, sign_in = configured(settings, new_provider())
    app = create_app(
        Context(signed, Store(settings.dsn), helper, Tasks(), probe, helper.wake, cipher=CIPHER, sign_in=sign_in),
        SECRET.encode(),
    )
    app.state.limits.sign_ins = Limit(10**6, 0.0)
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
    with TestClient(app, headers=headers, follow_redirects=False) as client:
        yield client


@hypothesis.settings(
    max_examples=300, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(METHODS, PATHS, HEADERS, BODIES)
def test_no_request_causes_an_unexpected_error(
    everything: TestClient, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    response = everything.request(method, path, content=body, headers=encoded)
    assert response.status_code < 500 or response.status_code in {503, 507}, response.text
    assert response.headers["x-request-id"]
    if response.headers.get("content-type", "").startswith("text/html"):
        assert urlsplit(path).path in PAGES
    elif response.status_code >= 400 and method != "HEAD":
        (error,) = response.json()["errors"]
        assert error["status"] == str(response.status_code)
        assert error["detail"]
