"""The table of roles: every route as every role, and every request to the helper as every role."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

import httpx
import psycopg
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from draupnir import roles
from draupnir.api.limits import Limits
from draupnir.api.routes import ENDPOINTS
from draupnir.app import create_app
from draupnir.callers import Caller, Reach, Role, Scope, Token, TokenKind
from draupnir.errors import Forbidden, HelperUnavailable
from draupnir.helper import Helper
from draupnir.operations import pool, reconcile
from draupnir.operations.context import Context
from draupnir.operations.tasks import Tasks
from draupnir.settings import Settings
from draupnir.store import Store
from draupnir_helper import wire
from tests.daemon import settings_on
from tests.fakes import CIPHER, FakeHelper, Probe
from tests.identity_provider import challenge_of
from tests.postgres import Cluster
from tests.sign_in import HERE, ISSUER, configured, new_provider


def bearer(name: str, role: Role, scope: Scope = Scope.FULL) -> Caller:
    """Return a caller with a session whose id is not in the store."""
    now = datetime.now(UTC)
    return Caller(name, role, token=Token(2**31 - 1, name, TokenKind.SESSION, "session", scope, now, now, now))


OWNER, OTHER = "ann@corp.example", "bob@corp.example"
CALLERS = {
    "anonymous": None,
    "user": bearer(OWNER, Role.USER),
    "another user": bearer(OTHER, Role.USER),
    "uploader": bearer(roles.UPLOAD, Role.UPLOADER),
    "admin": bearer("root@corp.example", Role.ADMIN),
}
VERIFIER = "v" * 43
BY_ROUTE = {(each.method, each.path): each for each in ENDPOINTS}
SERVED = list(BY_ROUTE)
# The bodies of valid requests; without them an allowed caller would get an error about the body.
ATTRIBUTES: dict[tuple[str, str], dict[str, object]] = {
    ("POST", "/images"): {"backed_up_at": "2017-05-01T12:00:00Z", "anonymisation_script": ""},
    ("PATCH", "/images/{image_id}"): {"anonymisation_script": "SELECT 1"},
    ("POST", "/instances"): {"image_id": 0},
    ("POST", "/instances/{instance_id}/addresses"): {"address": "192.0.2.7"},
    ("POST", "/sign_ins"): {"code_challenge": challenge_of({"code_verifier": VERIFIER})},
    ("POST", "/sessions"): {"code": "", "code_verifier": VERIFIER},
    ("POST", "/tokens"): {"name": "another"},
}
QUERIES = {("DELETE", "/instances/{instance_id}/addresses"): "?address=192.0.2.1"}


class Witness(FakeHelper):
    """Records the roles of requests."""

    def __init__(self) -> None:
        super().__init__()
        self.roles: set[Role] = set()

    async def exchange(self, request: wire.AnyRequest) -> bytes:
        # The daemon itself checks the disk each second.
        if roles.acting.get() is not Role.DAEMON or not isinstance(request, wire.ObserveInstances):
            self.roles.add(roles.acting.get())
        return await super().exchange(request)


@dataclass
class World:
    """A service with a ready image, one that awaits its upload, and an instance and a token of the owner."""

    http: TestClient
    app: Starlette
    helper: Witness
    idp: httpx.Client
    ready_id: int = 0
    waiting_id: int = 0
    failed_id: int = 0
    instance_id: int = 0
    token_id: int = 0
    last_seen: object = None

    def ask(self, who: str, method: str, path: str, attributes: dict[str, object] | None = None) -> Any:
        headers = {} if CALLERS.get(who, who) is None else {"Authorization": f"Bearer {who}"}
        body = None if attributes is None else {"data": {"attributes": attributes}}
        return self.http.request(method, path, json=body, headers=headers)

    def try_route(self, who: str, method: str, path: str) -> Any:
        """Return a valid request for resources of this world, which only the role can make fail."""
        image_id = self.ready_id if method == "GET" else self.waiting_id
        if path.endswith("/error"):
            image_id = self.failed_id
        attributes = ATTRIBUTES.get((method, path), {})
        if "image_id" in attributes:
            attributes = {"image_id": self.ready_id}
        if "code" in attributes:
            attributes = {**attributes, "code": self.code()}
        values = {"image_id": image_id, "instance_id": self.instance_id, "token_id": self.token_id}
        filled = re.sub(r"\{(\w+)\}", lambda name: str(values[name[1]]), path)
        if path == "/authenticate":
            filled = self.link()
        elif path == "/oauth_callback":
            filled = self.way_back()
        filled += QUERIES.get((method, path), "")
        return self.ask(who, method, filled, attributes if method != "GET" else None)

    def link(self) -> str:
        begun = self.ask("anonymous", "POST", "/sign_ins", ATTRIBUTES["POST", "/sign_ins"])
        return str(begun.json()["data"]["attributes"]["url"]).removeprefix(HERE)

    def way_back(self) -> str:
        asked = self.ask("anonymous", "GET", self.link()).headers["location"]
        form = dict(parse_qsl(urlsplit(asked).query)) | {"email": "jane@example.com"}
        return str(self.idp.post("/authorize", data=form).headers["location"]).removeprefix(HERE)

    def code(self) -> str:
        return str(re.findall("<code>(.*)</code>", self.ask("anonymous", "GET", self.way_back()).text)[0])

    def state(self) -> object:
        addresses = f"/instances/{self.instance_id}/addresses"
        seen = [self.ask("admin", "GET", path).json() for path in ("/images", "/instances?all=true", addresses)]
        return [*seen, *(self.ask(who, "GET", "/tokens").json() for who in CALLERS)]


@contextmanager
def new_world(settings: Settings) -> Iterator[World]:
    async def rest(context: Context) -> None:
        await asyncio.Event().wait()

    helper = Witness()
    idp = new_provider()
    settings, sign_in = configured(settings.model_copy(update={"enable_ip_whitelisting": True}), idp)
    context = Context(
        settings, Store(settings.dsn), helper, Tasks(), Probe(), helper.wake, cipher=CIPHER, sign_in=sign_in
    )
    app = create_app(context, b"the shared secret")

    async def identify(token: str) -> Caller | None:
        name, _, scope = token.partition("/")
        caller = CALLERS.get(name)
        return bearer(caller.name, caller.role, Scope.READ_ONLY) if caller and scope == "read" else caller

    app.state.identify = identify
    with (
        # The daemon's own requests to the helper would be mistaken for a caller's.
        mock.patch.object(reconcile, "run", rest),
        mock.patch.object(pool, "run", rest),
        TestClient(app, HERE, follow_redirects=False) as http,
        TestClient(idp.app(), ISSUER, follow_redirects=False) as provider,
    ):
        made = World(http, app, helper, provider)
        made.ready_id, made.waiting_id, made.failed_id = (
            made.ask("admin", "POST", "/images", ATTRIBUTES["POST", "/images"]).json()["data"]["id"] for _ in range(3)
        )
        for image_id in (made.ready_id, made.waiting_id, made.failed_id):
            helper.upload(image_id)
        helper.outcomes, helper.error_text = {wire.JobKind.FINALISE: wire.JobState.FAILED}, "Failing row contains (7)."
        assert made.ask("admin", "POST", f"/images/{made.failed_id}/done").status_code == 422
        helper.outcomes, helper.error_text = {}, None
        assert made.ask("admin", "POST", f"/images/{made.ready_id}/done").status_code == 200
        created = made.ask("user", "POST", "/instances", {"image_id": made.ready_id})
        assert created.status_code == 201, created.text
        made.instance_id = created.json()["data"]["id"]
        added = made.ask("user", "POST", f"/instances/{made.instance_id}/addresses", {"address": "192.0.2.1"})
        assert added.status_code == 201, added.text
        made.token_id = made.ask("user", "POST", "/tokens", {"name": "ci"}).json()["data"]["id"]
        yield made


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    """Provide a world that the test may change."""
    with new_world(settings) as made:
        made.helper.roles.clear()
        yield made


@pytest.fixture(scope="module")
def shared_world(cluster: Cluster) -> Iterator[World]:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shared_world")
    with new_world(settings_on(cluster.dsn("shared_world"))) as made:
        yield made


@pytest.fixture
def lasting_world(shared_world: World) -> Iterator[World]:
    """Provide a shared world for tests that change nothing, and check that they do not."""
    shared_world.app.state.limits = Limits()
    before = shared_world.last_seen or shared_world.state()
    shared_world.helper.roles.clear()
    yield shared_world
    shared_world.last_seen = shared_world.state()
    assert shared_world.last_seen == before


def test_no_route_is_given_twice() -> None:
    assert len(BY_ROUTE) == len(ENDPOINTS)


def expected(who: str, method: str, path: str) -> int | None:
    """Return the status with which the table refuses a caller, or None if the table allows the caller."""
    caller = CALLERS[who]
    reach = BY_ROUTE[method, path].access.of(caller.role if caller else Role.ANONYMOUS)
    if reach is Reach.NOTHING:
        return 401 if caller is None else 403
    if reach is Reach.OWN and "{" in path and (caller is None or caller.name != OWNER):
        return 404
    return None


EVERYBODY_EVERYWHERE = [(who, method, path) for method, path in SERVED for who in CALLERS]


@pytest.mark.parametrize(("who", "method", "path"), [each for each in EVERYBODY_EVERYWHERE if expected(*each)])
def test_a_role_without_access_is_refused(lasting_world: World, who: str, method: str, path: str) -> None:
    answer = lasting_world.try_route(who, method, path)
    assert answer.status_code == expected(who, method, path), answer.text
    assert lasting_world.helper.roles == set()


ADMITTED = [each for each in EVERYBODY_EVERYWHERE if not expected(*each)]


def assert_served(world: World, who: str, method: str, path: str) -> None:
    answer = world.try_route(who, method, path)
    assert answer.status_code < 400, answer.text
    caller = None if BY_ROUTE[method, path].access.is_public else CALLERS[who]
    assert world.helper.roles <= {caller.role if caller else Role.ANONYMOUS}


@pytest.mark.parametrize(("who", "method", "path"), [each for each in ADMITTED if each[1] != "GET"])
def test_a_role_with_access_is_served_in_that_role(world: World, who: str, method: str, path: str) -> None:
    assert_served(world, who, method, path)


@pytest.mark.parametrize(("who", "method", "path"), [each for each in ADMITTED if each[1] == "GET"])
def test_a_role_with_read_access_changes_nothing(lasting_world: World, who: str, method: str, path: str) -> None:
    assert_served(lasting_world, who, method, path)


@pytest.mark.parametrize("who", [who for who, caller in CALLERS.items() if caller])
@pytest.mark.parametrize(("method", "path"), SERVED)
def test_a_read_only_token_changes_nothing(lasting_world: World, who: str, method: str, path: str) -> None:
    answer = lasting_world.try_route(f"{who}/read", method, path)
    if (method, path) == ("DELETE", "/sessions/current"):
        assert answer.status_code == 204
    elif method != "GET" and not BY_ROUTE[method, path].access.is_public:
        assert answer.status_code == 403
    else:
        assert answer.status_code == expected(who, method, path) or answer.status_code < 400
    assert "PRIVATE KEY" not in answer.text


@pytest.mark.parametrize("who", CALLERS)
def test_only_an_admin_sees_the_instances_of_all_users(lasting_world: World, who: str) -> None:
    answer = lasting_world.ask(who, "GET", "/instances?all=true")
    if who == "admin":
        assert [each["id"] for each in answer.json()["data"]] == [lasting_world.instance_id]
        assert lasting_world.ask(who, "GET", "/instances").json()["data"] == []
    else:
        assert answer.status_code == (401 if who == "anonymous" else 403)


@pytest.mark.parametrize("who", CALLERS)
def test_raw_rows_reach_only_uploaders_and_admins(lasting_world: World, who: str) -> None:
    for path in ("/images", f"/images/{lasting_world.failed_id}"):
        assert "Failing row" not in lasting_world.ask(who, "GET", path).text
    answer = lasting_world.ask(who, "GET", f"/images/{lasting_world.failed_id}/error")
    assert ("Failing row" in answer.text) is (who in {"uploader", "admin"})
    assert answer.status_code == {"uploader": 200, "admin": 200, "anonymous": 401}.get(who, 403)


def test_an_admin_does_not_get_credentials_of_others(lasting_world: World) -> None:
    path = f"/instances/{lasting_world.instance_id}"
    assert "PRIVATE KEY" in lasting_world.ask("user", "GET", path).text
    assert "PRIVATE KEY" not in lasting_world.ask("admin", "GET", path).text


def test_ids_of_others_look_like_missing_ones(lasting_world: World) -> None:
    """The answer for another user's id is identical to that for a missing id."""
    theirs, nobodys = lasting_world.instance_id, lasting_world.instance_id + 1000
    for method in ("GET", "DELETE"):
        answers = [lasting_world.ask("another user", method, f"/instances/{each}") for each in (theirs, nobodys)]
        assert {answer.status_code for answer in answers} == {404}
        assert answers[0].text.replace(str(theirs), "N") == answers[1].text.replace(str(nobodys), "N")


@pytest.mark.parametrize("row", SERVED)
def test_a_higher_role_reaches_no_less(row: tuple[str, str]) -> None:
    order = [Reach.NOTHING, Reach.OWN, Reach.ALL]
    reaches = [order.index(reach) for reach in BY_ROUTE[row].access]
    assert reaches == sorted(reaches)


def test_every_request_to_the_helper_has_a_row_and_every_row_a_request() -> None:
    assert set(wire.REQUESTS) == roles.HELPER_REQUESTS.keys()
    assert all(Role.DAEMON in allowed for allowed in roles.HELPER_REQUESTS.values())


class Reached(Helper):
    """Raised when the request reaches the helper."""

    async def exchange(self, request: wire.AnyRequest) -> bytes:
        raise HelperUnavailable(request.op)


@pytest.mark.anyio
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("kind", wire.REQUESTS)
async def test_no_role_causes_a_request_to_the_helper_beyond_the_table(kind: type[wire.AnyRequest], role: Role) -> None:
    before = roles.acting.set(role)
    try:
        with pytest.raises(HelperUnavailable if role in roles.HELPER_REQUESTS[kind] else Forbidden):
            await Reached().ask(kind.model_construct())
    finally:
        roles.acting.reset(before)
