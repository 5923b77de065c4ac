"""Laws of the edge: every answer has an id and a log line, every error its status, and no fault of ours shows."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from draupnir import errors
from draupnir.api import bodies
from draupnir.app import create_app
from draupnir.operations.context import Context

SECRET = b"a-secret-for-tests-only"

STATUSES = [
    (errors.InvalidRequest("why"), 400, "invalid_request"),
    (bodies.InvalidJson("why"), 400, "invalid_json"),
    (errors.Unauthorized("why"), 401, "unauthorized"),
    (errors.NotFound("why"), 404, "not_found"),
    (bodies.BodyTooSlow(), 408, "body_too_slow"),
    (errors.WrongState("why"), 409, "wrong_state"),
    (errors.NothingUploaded("why"), 409, "nothing_uploaded"),
    (bodies.BodyTooLarge(), 413, "body_too_large"),
    (errors.ImageNotReady("why"), 422, "image_not_ready"),
    (errors.ImageHasInstances("why"), 422, "image_has_instances"),
    (errors.NoFreePort("why"), 422, "no_free_port"),
    (errors.PostgresMissing("why"), 422, "postgres_missing"),
    (errors.ImageFailed("script_failed", "why"), 422, "script_failed"),
    (errors.HelperUnavailable("why"), 503, "helper_unavailable"),
    (errors.MetadataUnavailable("why"), 503, "metadata_unavailable"),
    (errors.StorageMissing("why"), 503, "storage_missing"),
    (errors.NoRoom("why"), 507, "no_room"),
    (errors.DraupnirError("why"), 500, "internal"),
]


class Faulty:
    """An endpoint that raises whatever it is told to."""

    error: BaseException = ValueError()

    async def __call__(self, request: Request) -> Response:
        raise self.error


@pytest.fixture
def faulty() -> Faulty:
    return Faulty()


@pytest.fixture
def client(faulty: Faulty) -> TestClient:
    async def endpoint(request: Request) -> Response:
        return await faulty(request)

    app = create_app(cast(Context, None), SECRET)
    app.router.routes.append(Route("/faulty", endpoint))
    return TestClient(app)


@pytest.fixture(autouse=True)
def access_lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, "draupnir"):
        yield caplog


def the_error(response: Any) -> dict[str, str]:
    (error,) = response.json()["errors"]
    assert error.keys() == {"status", "code", "title", "detail"}
    assert error["status"] == str(response.status_code)
    return cast(dict[str, str], error)


@pytest.mark.parametrize(("error", "status", "code"), STATUSES, ids=lambda value: type(value).__name__)
def test_each_error_has_its_status_and_code(
    client: TestClient, faulty: Faulty, error: errors.DraupnirError, status: int, code: str
) -> None:
    faulty.error = error
    response = client.get("/faulty")
    assert response.status_code == status
    assert the_error(response)["code"] == code
    assert the_error(response)["detail"] == error.detail
    assert response.headers["content-type"] == "application/json"


def test_a_fault_of_our_own_shows_nothing_and_is_found_in_the_log_by_its_id(
    client: TestClient, faulty: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.error = ZeroDivisionError("inner workings")
    response = client.get("/faulty")
    assert response.status_code == 500
    assert the_error(response)["code"] == "internal"
    assert "inner workings" not in response.text
    assert response.headers["x-request-id"] in the_error(response)["detail"]
    assert "ZeroDivisionError: inner workings" in caplog.text
    assert f"request {response.headers['x-request-id']} failed" in caplog.text


def test_a_request_that_waits_while_the_service_stops_is_told_to_ask_again(client: TestClient, faulty: Faulty) -> None:
    faulty.error = asyncio.CancelledError()
    response = client.get("/faulty")
    assert response.status_code == 503
    assert the_error(response)["code"] == "unavailable"


def test_a_client_that_goes_away_is_no_fault_of_ours(
    client: TestClient, faulty: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.error = ClientDisconnect()
    with pytest.raises(AssertionError):  # the test client's: there was no response
        client.get("/faulty")
    assert "status=499" in caplog.text
    assert "Traceback" not in caplog.text


def test_the_id_of_a_request_is_kept_if_it_is_plain_and_made_otherwise(client: TestClient) -> None:
    assert client.get("/x", headers={"X-Request-Id": "backup-7.a_B"}).headers["x-request-id"] == "backup-7.a_B"
    for unfit in ("", "a b", "x" * 65, "a\tb", '"'):
        made = client.get("/x", headers={"X-Request-Id": unfit}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{16}", made)


def test_a_line_of_the_access_log_cannot_be_forged_by_the_path(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.get("/images%0Arequest=forged status=200")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "draupnir.access"]
    assert "\n" not in line
    assert "path=/images%0Arequest%3Dforged%20status%3D200 status=404" in line


def test_no_credential_reaches_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    for credential in (f"Bearer {SECRET.decode()}x", f"Basic {SECRET.decode()}", SECRET.decode()):
        response = client.get("/images", headers={"Authorization": credential})
        assert response.status_code == 401
        assert SECRET.decode() not in response.text
    assert SECRET.decode() not in caplog.text


@pytest.mark.parametrize(
    "path", ["/", "/images/", "/images/1/", "/images/1/done/", "/instances/1/x", "/%00", "//images"]
)
def test_an_unknown_path_is_not_there_and_says_what_is(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert the_error(response)["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/images", {"GET", "HEAD", "POST"}),
        ("POST", "/images/1", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("GET", "/images/1/done", {"POST"}),
        ("DELETE", "/instances", {"GET", "HEAD", "POST"}),
        ("PATCH", "/instances/1", {"GET", "HEAD", "DELETE"}),
        ("POST", "/health_check", {"GET", "HEAD"}),
        ("BREW", "/images", {"GET", "HEAD", "POST"}),
    ],
)
def test_a_method_that_a_resource_has_not_is_refused_with_those_it_has(
    client: TestClient, method: str, path: str, allowed: set[str]
) -> None:
    response = client.request(method, path)
    assert response.status_code == 405
    assert the_error(response)["code"] == "method_not_allowed"
    assert set(response.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "credential",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic " + SECRET.decode(),
        SECRET.decode(),
        "Bearer " + SECRET.decode()[:-1],
        "Bearer " + SECRET.decode().upper(),
        "Bearer \xff\xfe",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/images"), ("POST", "/images/1/done"), ("DELETE", "/instances/x"), ("HEAD", "/images")],
)
def test_nothing_is_done_for_who_has_no_good_token(
    client: TestClient, credential: str | None, method: str, path: str
) -> None:
    headers = {} if credential is None else {b"Authorization": credential.encode("latin-1")}
    response = client.request(method, path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_an_empty_secret_is_no_secret() -> None:
    with pytest.raises(ValueError, match="empty"):
        create_app(cast(Context, None), b"")
