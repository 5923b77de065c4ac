"""Laws of the middleware: every answer has an id and a log line, every error its status; internals stay hidden."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from draupnir import audit, errors
from draupnir.api import bodies, edge
from draupnir.api.auth import ANONYMOUS, caller_of
from draupnir.api.limits import LINES_AT_ONCE, WRONG_TOKENS_AT_ONCE, Limits, Lines, limited
from draupnir.app import create_app
from draupnir.callers import Caller, Role
from draupnir.helper import Helper
from draupnir.operations.context import Context
from draupnir.operations.tasks import Tasks
from draupnir.settings import Settings
from draupnir.store import Store

SECRET = b"a-secret-for-tests-only"
# No request of these tests reaches the metadata or the helper.
CONTEXT = Context(Settings(public_hostname="db.example.org"), cast(Store, None), cast(Helper, None), Tasks())

STATUSES = [
    (errors.InvalidRequest("why"), 400, "invalid_request"),
    (bodies.InvalidJson("why"), 400, "invalid_json"),
    (errors.Unauthorized("why"), 401, "unauthorized"),
    (errors.NotFound("why"), 404, "not_found"),
    (bodies.BodyTooSlow(), 408, "body_too_slow"),
    (errors.WrongState("why"), 409, "wrong_state"),
    (errors.NothingUploaded("why"), 409, "nothing_uploaded"),
    (bodies.BodyTooLarge(1), 413, "body_too_large"),
    (errors.ImageNotReady("why"), 422, "image_not_ready"),
    (errors.ImageHasInstances("why"), 422, "image_has_instances"),
    (errors.NoFreePort("why"), 422, "no_free_port"),
    (errors.PostgresMissing("why"), 422, "postgres_missing"),
    (errors.ImageFailed("script_failed", "why"), 422, "script_failed"),
    (errors.TooManyRequests(7), 429, "too_many_requests"),
    (errors.TooManyInstances("why"), 429, "too_many_instances"),
    (errors.TooManyTokens("why"), 429, "too_many_tokens"),
    (errors.HelperUnavailable("why"), 503, "helper_unavailable"),
    (errors.MetadataUnavailable("why"), 503, "metadata_unavailable"),
    (errors.StorageMissing("why"), 503, "storage_missing"),
    (errors.NoRoom("why"), 507, "no_room"),
    (errors.DraupnirError("why"), 500, "internal"),
]


def stopped() -> float:
    """Return the time of a clock for limits, which would admit more requests while a test runs on a busy machine."""
    return 0.0


class Faulty:
    """An endpoint that raises a given exception."""

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

    app = create_app(CONTEXT, SECRET)
    app.state.limits = Limits(stopped)
    app.router.routes.append(Route("/faulty", endpoint))
    return TestClient(app)


@pytest.fixture(autouse=True)
def access_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    # A test of the command `serve` in the same process may have changed the handlers.
    monkeypatch.setattr(logging.getLogger(audit.LOGGER), "propagate", True)
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


def test_no_flood_of_requests_keeps_a_change_out_of_the_journal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "Lines", partial(Lines, stopped))

    async def change(request: Request) -> Response:
        return Response(status_code=204)

    app = create_app(CONTEXT, SECRET)
    app.router.routes.append(Route("/change", change, methods=["DELETE"]))
    client = TestClient(app)
    for number in range(LINES_AT_ONCE + 200):
        client.request(("GET", "POST")[number % 2], "/nowhere")
    client.delete("/change")
    lines = [record.getMessage() for record in caplog.records if record.name in {"draupnir.access", audit.LOGGER}]
    assert sum("path=/nowhere" in line for line in lines) < LINES_AT_ONCE + 100
    assert sum("path=/change" in line for line in lines) == 1
    assert sum("too many requests" in record.getMessage() for record in caplog.records) == 1


def test_an_unexpected_error_is_hidden_and_logged_with_its_id(
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


def test_a_request_that_waits_while_the_service_stops_gets_503(client: TestClient, faulty: Faulty) -> None:
    faulty.error = asyncio.CancelledError()
    response = client.get("/faulty")
    assert response.status_code == 503
    assert the_error(response)["code"] == "unavailable"


def test_a_disconnected_client_is_not_an_error(
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
def test_an_unknown_path_is_404_and_lists_the_resources(client: TestClient, path: str) -> None:
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
def test_an_unsupported_method_is_refused_with_the_supported_ones(
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
def test_a_request_without_a_valid_token_does_nothing(
    client: TestClient, credential: str | None, method: str, path: str
) -> None:
    headers = {} if credential is None else {b"Authorization": credential.encode("latin-1")}
    response = client.request(method, path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def audit_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == audit.LOGGER]


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT", "BREW"])
def test_a_changing_request_is_audited_even_if_refused(
    client: TestClient, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    client.request(method, "/images/7", headers={"X-Request-Id": "backup-7"})
    (line,) = audit_lines(caplog)
    assert line.startswith(f"caller=- source=- method={method} path=/images/7 status=4")
    assert line.endswith(" result=refused request=backup-7")


def test_an_audit_line_has_caller_address_and_created_resource(
    client: TestClient, faulty: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    app = cast(Starlette, client.app)

    async def make(request: Request) -> Response:
        request.state.caller = Caller("jane@corp.example", Role.USER)
        return Response(status_code=201, headers={"Location": "/instances/4"})

    app.router.routes.append(Route("/make", make, methods=["POST"]))
    TestClient(app, client=("10.1.2.3", 4711)).post("/make?code=canary")
    (line,) = audit_lines(caplog)
    assert re.fullmatch(
        "caller=jane@corp.example source=10.1.2.3 method=POST path=/make made=/instances/4 status=201 ms=[0-9]+"
        " result=done request=[0-9a-f]{16}",
        line,
    )
    assert "canary" not in our_lines(caplog)


def our_lines(caplog: pytest.LogCaptureFixture) -> str:
    """Return all records except those of the tests' own HTTP client."""
    return "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("draupnir"))


def test_an_audit_line_cannot_be_forged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    client.request(
        "POST",
        "/images%0A<0>caller=admin%20status=200%E2%80%A8x",
        headers={"X-Request-Id": "a status=200", "X-Forwarded-For": "6.6.6.6"},
    )
    (line,) = audit_lines(caplog)
    assert len(line.split()) == len(re.findall("[a-z]+=", line))
    assert "source=- " in line
    assert line.isascii()


def test_no_query_reaches_a_log(client: TestClient, faulty: Faulty, caplog: pytest.LogCaptureFixture) -> None:
    for method in ("GET", "POST"):
        for path in ("/images", "/instances/4", "/nowhere", "/faulty"):
            client.request(method, f"{path}?code=canary&state=canary")
    assert "canary" not in our_lines(caplog)


def test_every_answer_has_security_headers(client: TestClient, faulty: Faulty) -> None:
    for path in ("/images", "/nowhere", "/faulty"):
        for scheme in ("http", "https"):
            headers = client.get(f"{scheme}://testserver{path}").headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["referrer-policy"] == "no-referrer"
            assert "server" not in headers
            assert ("strict-transport-security" in headers) == (scheme == "https")


def from_address(client: TestClient, address: str) -> TestClient:
    return TestClient(client.app, client=(address, 4711))


def ask(client: TestClient, token: str) -> Any:
    return client.get("/whoami", headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def guarded(client: TestClient) -> TestClient:
    async def whoami(request: Request) -> Response:
        return Response((await caller_of(request)).name)

    cast(Starlette, client.app).router.routes.append(Route("/whoami", whoami))
    return client


def test_invalid_tokens_are_limited_and_a_valid_one_of_a_neighbour_is_not(guarded: TestClient) -> None:
    natted, other = from_address(guarded, "10.0.0.1"), from_address(guarded, "10.0.0.2")
    assert ask(natted, SECRET.decode()).status_code == 200
    statuses = [ask(natted, f"wrong {number}").status_code for number in range(WRONG_TOKENS_AT_ONCE + 1)]
    assert statuses == [401] * WRONG_TOKENS_AT_ONCE + [429]
    held_back = ask(natted, "wrong")
    assert 1 <= int(held_back.headers["retry-after"]) <= 60
    assert the_error(held_back)["code"] == "too_many_requests"
    assert ask(natted, SECRET.decode()).status_code == 200
    assert ask(other, SECRET.decode()).status_code == 200
    assert ask(other, "wrong").status_code == 401


def test_a_valid_token_from_a_new_network_is_limited_like_invalid_ones(guarded: TestClient) -> None:
    """Otherwise a limited client could still find out that a guess is right."""
    natted = from_address(guarded, "10.0.0.1")
    for number in range(WRONG_TOKENS_AT_ONCE):
        ask(natted, f"wrong {number}")
    assert ask(natted, SECRET.decode()).status_code == 429


def test_valid_tokens_do_not_use_up_the_limit(guarded: TestClient) -> None:
    for _ in range(WRONG_TOKENS_AT_ONCE * 2):
        assert ask(guarded, SECRET.decode()).status_code == 200


def test_a_route_marked_as_limited_is_so_by_source_and_always_audited(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def sign_in(request: Request, caller: Caller) -> Response:
        return Response()

    async def endpoint(request: Request) -> Response:
        return await limited(sign_in)(request, ANONYMOUS)

    cast(Starlette, client.app).router.routes.append(Route("/sign_in", endpoint))
    one, other = from_address(client, "2001:db8::1"), from_address(client, "2001:db8:0:1::1")
    answers = [one.get("/sign_in").status_code for _ in range(100)]
    assert answers[0] == 200
    assert answers[-1] == 429
    assert from_address(client, "2001:db8::ffff").get("/sign_in").status_code == 429
    assert other.get("/sign_in").status_code == 200
    assert len(audit_lines(caplog)) == 102


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        create_app(CONTEXT, b"")
