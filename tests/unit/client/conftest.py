"""A separate home for every test, and a small server with the API of docs/API.md."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import click.testing
import httpx
import pytest

from draupnir_client.cli import program
from draupnir_client.commands import Invocation
from draupnir_client.config import Config

TOKEN = "the-secret"
ME = "upload"
JANE = "jane@corp.example"
END = "2099-01-01T00:00:00Z"
CREDENTIALS = {
    "ca_certificate": "-----BEGIN CERTIFICATE-----\nCA\n-----END CERTIFICATE-----\n",
    "client_certificate": "-----BEGIN CERTIFICATE-----\nCLIENT\n-----END CERTIFICATE-----\n",
    "client_key": "-----BEGIN PRIVATE KEY-----\nS0VZ\n-----END PRIVATE KEY-----\n",
    "client_pkcs12": "UEtDUyMxMg==",
    "user": "draupnir",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide an empty home, without settings of the user who runs the tests."""
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(directory))
    for name in ("SSH_CONNECTION", "SSH_TTY", "BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name in (
        "XDG_CONFIG_HOME",
        "XDG_CACHE_HOME",
        "DRAUPNIR_URL",
        "DRAUPNIR_TOKEN",
        "PGDATABASE",
        "PGSERVICE",
        "PGSSLKEY",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return directory


def image(number: int, status: str = "ready", **attributes: object) -> dict[str, Any]:
    """Return an image object of the API."""
    common = {
        "backed_up_at": f"2017-05-{number:02}T12:00:00Z",
        "created_at": "2017-05-01T15:00:00Z",
        "updated_at": "2017-05-01T15:00:00Z",
        "ready": status == "ready",
        "status": status,
        "error": None,
        "progress": None,
        "anonymisation_script": "\\c my_db\nDELETE FROM secret_tokens;",
        "postgres_version": "17",
        "size_bytes": 1_234_567_890,
    }
    return {"type": "images", "id": number, "attributes": common | attributes}


def instance(number: int, image_id: int = 3, **attributes: object) -> dict[str, Any]:
    """Return an instance object of the API, without credentials."""
    common = {
        "created_at": "2017-05-01T16:00:00Z",
        "updated_at": "2017-05-01T16:00:00Z",
        "image_id": image_id,
        "port": "6543",
        "status": "running",
        "sleep_after": 1800,
        "network": "proxied",
        "max_bytes": 20 * 1024**3,
        "written_bytes": 17_200_000,
        "hostname": "my-draupnir.tld",
        "owner": ME,
    }
    return {"type": "instances", "id": number, "attributes": common | attributes}


def event(number: int, name: str = "started", **attributes: object) -> dict[str, Any]:
    """Return an event object of the API."""
    common = {
        "happened_at": "2017-05-01T16:00:00Z",
        "event": name,
        "subject": {"type": "instances", "id": "4"},
        "from": "creating",
        "to": "running",
        "owner": ME,
        "caller": ME,
        "reason": None,
        "request_id": "f00d",
    }
    return {"type": "events", "id": str(number), "attributes": common | attributes}


def token(number: int, kind: str, **attributes: object) -> dict[str, Any]:
    """Return a token object of the API."""
    common = {
        "name": "session",
        "kind": kind,
        "scope": "full",
        "created_at": "2017-05-01T16:00:00Z",
        "expires_at": END,
        "last_used_at": None,
    }
    return {"type": "tokens", "id": number, "attributes": common | attributes}


@dataclass
class FakeServer:
    """Images and instances in memory, as an admin sees them, and Jane's tokens, if `people` can sign in.

    `script` has the next answers to GETs of an image, before the stored image. `codes` are issued one-time codes, each
    with its challenge. `tokens` maps a token's secret to its attributes.
    """

    people: bool = False
    knows_roles: bool = True
    sign_ins: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)

    images: dict[int, dict[str, Any]] = field(default_factory=dict)
    error_texts: dict[int, str] = field(default_factory=dict)
    reports: dict[int, list[dict[str, str]]] = field(default_factory=dict)
    instances: dict[int, dict[str, Any]] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    events: list[dict[str, Any]] = field(default_factory=list)
    script: list[dict[str, Any] | int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    headers: list[httpx.Headers] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer like the API."""
        self.asked.append(f"{request.method} {request.url.raw_path.decode()}")
        self.bodies.append(json.loads(request.content) if request.content else None)
        self.headers.append(request.headers)
        if (request.method, request.url.path) in (("POST", "/sign_ins"), ("POST", "/sessions")):
            return self._sign_in(request.url.path, self.bodies[-1]["data"]["attributes"])
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if bearer in self.tokens and request.url.path.startswith(("/tokens", "/sessions")):
            return self._tokens(request.method, request.url.path.strip("/").split("/"), bearer)
        if bearer != TOKEN and bearer not in self.tokens:
            return problem(401, "unauthorized", "The token is not one that is known here.")
        match request.method, request.url.path.strip("/").split("/"):
            case "GET", ["sessions", "current"]:
                attributes = {"name": ME, "role": "uploader", "kind": "shared_secret", "scope": "full"}
                return httpx.Response(200, json={"data": {"type": "sessions", "attributes": attributes}})
            case "GET", ["events"]:
                after = int(request.url.params.get("after", "0"))
                return httpx.Response(200, json={"data": [each for each in self.events if int(each["id"]) > after]})
            case "GET", ["images"]:
                return httpx.Response(200, json={"data": list(self.images.values())})
            case "GET", ["instances"]:
                asks_for_all = request.url.params.get("all") == "true"
                seen = [one for one in self.instances.values() if asks_for_all or owner_of(one) == ME]
                return httpx.Response(200, json={"data": seen})
            case "POST", ["images"]:
                attributes = self.bodies[-1]["data"]["attributes"]
                return self._made(self.images, image(len(self.images) + 1, "awaiting_upload", **attributes))
            case "POST", ["instances"]:
                return self._make_instance(**self.bodies[-1]["data"]["attributes"])
            case method, ["images", number, *rest]:
                return self._one_image(method, int(number), rest)
            case "GET", ["instances", number] if int(number) in self.instances:
                found = self.instances[int(number)]
                role = request.url.params.get("role", "draupnir") if self.knows_roles else "draupnir"
                shown = with_credentials(found, role) if owner_of(found) == ME else found
                return httpx.Response(200, json={"data": shown})
            case "POST", ["instances", number, "restore"] if int(number) in self.instances:
                attributes = self.instances[int(number)]["attributes"]
                attributes.pop("destroy_at", None)
                attributes.update(status="running", **self.bodies[-1]["data"]["attributes"])
                return httpx.Response(200, json={"data": self.instances[int(number)]})
            case "DELETE", ["instances", number] if self.instances.pop(int(number), None):
                return httpx.Response(204)
            case "POST", ["instances", number, "addresses"] if int(number) in self.instances:
                return httpx.Response(201, json={"data": {}})
            case "DELETE", ["instances", number, "addresses"] if int(number) in self.instances:
                if request.url.params["address"] not in self.addresses:
                    return problem(404, "not_found", "It is not on the list.")
                return httpx.Response(204)
            case _, ["instances", number, *_]:
                return problem(404, "not_found", f"Instance {number} not found.")
        return problem(404, "not_found", "Not found.")

    def session(self, **attributes: object) -> str:
        """Create a session of Jane, or another kind of token."""
        number = len(self.tokens) + 1
        made = f"dru_{number:043}"
        self.tokens[made] = token(number, **({"kind": "session"} | attributes))  # type: ignore[arg-type]
        return made

    def vouch(self, url: str) -> tuple[str, int | None]:
        """Return the result of a sign-in at the provider: a code, and the client's port."""
        challenge, port = self.sign_ins.pop(url)
        code = f"the-one-time-code-{len(self.codes)}"
        self.codes[code] = challenge
        return code, port

    def _sign_in(self, path: str, wish: dict[str, Any]) -> httpx.Response:
        if not self.people:
            return problem(422, "sign_in_not_configured", "Nobody can sign in here; use --token-file.")
        if path == "/sign_ins":
            url = f"https://my-draupnir.tld/authenticate?sign_in=link-{len(self.asked)}"
            self.sign_ins[url] = wish["code_challenge"], wish["loopback_port"]
            begun = {"type": "sign_ins", "attributes": {"url": url, "expires_at": END}}
            return httpx.Response(201, json={"data": begun})
        digest = hashlib.sha256(wish["code_verifier"].encode()).digest()
        if self.codes.pop(wish["code"], "") != base64.urlsafe_b64encode(digest).decode().rstrip("="):
            return problem(401, "sign_in_refused", "The code is wrong, was used already, or has expired.")
        made = {"token": self.session(), "email": JANE, "role": "user", "expires_at": END}
        return httpx.Response(201, json={"data": {"type": "sessions", "id": 1, "attributes": made}})

    def _tokens(self, method: str, path: list[str], bearer: str) -> httpx.Response:
        mine = self.tokens[bearer]
        match method, path:
            case "GET", ["sessions", "current"]:
                caller = {"name": JANE, "role": "user"} | mine["attributes"] | {"name": JANE}
                return httpx.Response(200, json={"data": {"type": "sessions", "id": mine["id"], "attributes": caller}})
            case "DELETE", ["sessions", "current"]:
                del self.tokens[bearer]
                return httpx.Response(204)
            case "GET", ["tokens"]:
                return httpx.Response(200, json={"data": list(self.tokens.values())})
            case "POST", ["tokens"] if mine["attributes"]["scope"] == "read_only":
                return problem(403, "forbidden", "This token is read-only; use a token with full scope.")
            case "POST", ["tokens"]:
                wish = self.bodies[-1]["data"]["attributes"]
                made = self.session(kind="named", name=wish["name"], scope=wish["scope"])
                document = self.tokens[made]
                shown = {**document, "attributes": {**document["attributes"], "token": made}}
                return httpx.Response(201, json={"data": shown})
            case "DELETE", ["tokens", number]:
                found = [key for key, one in self.tokens.items() if one["id"] == int(number)]
                if not found:
                    return problem(404, "not_found", f"There is no token {number}.")
                del self.tokens[found[0]]
                return httpx.Response(204)
        return problem(404, "not_found", "Not found.")

    def _made(self, kind: dict[int, dict[str, Any]], thing: dict[str, Any]) -> httpx.Response:
        kind[thing["id"]] = thing
        return httpx.Response(201, json={"data": thing})

    def _make_instance(self, image_id: int, **attributes: object) -> httpx.Response:
        if image_id not in self.images:
            return problem(404, "not_found", f"Image {image_id} not found.")
        if not self.images[image_id]["attributes"]["ready"]:
            return problem(422, "image_not_ready", f"Image {image_id} is not ready; finalise it first.")
        database = self.images[image_id]["attributes"].get("database")
        made = instance(max(self.instances, default=0) + 1, image_id, database=database, **attributes)
        self.instances[made["id"]] = made
        return httpx.Response(201, json={"data": with_credentials(made)})

    def _one_image(self, method: str, number: int, rest: list[str]) -> httpx.Response:
        if number not in self.images:
            return problem(404, "not_found", f"Image {number} not found.")
        found = self.images[number]
        if method == "DELETE":
            if (
                any(one["attributes"]["image_id"] == number for one in self.instances.values())
                and "?" not in self.asked[-1]
            ):
                return problem(422, "image_has_instances", f"Image {number} has instances.")
            del self.images[number]
            return httpx.Response(204)
        if method == "PATCH":
            found["attributes"].update(self.bodies[-1]["data"]["attributes"])
        if rest == ["error"]:
            if self.people:
                return problem(403, "forbidden", "This is for the uploader or an admin to do.")
            if number not in self.error_texts:
                return problem(404, "not_found", "Nothing more is kept.")
            attributes = {"text": self.error_texts[number]}
            return httpx.Response(200, json={"data": {"type": "image_errors", "id": number, "attributes": attributes}})
        if rest == ["report"]:
            if number not in self.reports:
                return problem(404, "not_found", f"Image {number} has no report.")
            rows = {"rows": self.reports[number]}
            return httpx.Response(200, json={"data": {"type": "reports", "id": number, "attributes": rows}})
        if rest == ["done"]:
            return httpx.Response(200 if found["attributes"]["ready"] else 202, json={"data": found})
        if method == "GET" and self.script:
            scripted = self.script.pop(0)
            if isinstance(scripted, int):
                return problem(scripted, "unavailable", "The service is being restarted.")
            return httpx.Response(200, json={"data": scripted})
        return httpx.Response(200, json={"data": found})


def owner_of(found: dict[str, Any]) -> str:
    return str(found["attributes"]["owner"])


def with_credentials(found: dict[str, Any], role: str = "draupnir") -> dict[str, Any]:
    return {**found, "attributes": {**found["attributes"], "credentials": {**CREDENTIALS, "user": role}}}


def problem(status: int, code: str, detail: str) -> httpx.Response:
    """Return an error answer of the API."""
    title = code.replace("_", " ").capitalize()
    error = {"status": str(status), "code": code, "title": title, "detail": detail}
    return httpx.Response(status, json={"errors": [error]})


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@dataclass
class Clock:
    """Time that passes only when the client pauses."""

    time_s: float = 1000.0

    def pause(self, seconds: float) -> None:
        self.time_s += seconds

    def now(self) -> float:
        return self.time_s


class Run(Protocol):
    """Runs the client on a command line against the fake server."""

    def __call__(
        self,
        *arguments: str,
        given: str | bytes | None = None,
        token: str | None = TOKEN,
        browser: Callable[[str], bool] | None = None,
    ) -> click.testing.Result: ...


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    def open_fake(settled: Config, timeout_s: float, *, anonymous: bool = False) -> httpx.Client:
        from draupnir_client.api import open_http

        with open_http(settled, timeout_s, anonymous=anonymous) as real:
            return httpx.Client(
                transport=httpx.MockTransport(server.answer), base_url=real.base_url, headers=real.headers
            )

    def invoke(
        *arguments: str,
        given: str | bytes | None = None,
        token: str | None = TOKEN,
        browser: Callable[[str], bool] | None = None,
    ) -> click.testing.Result:
        if token is None:
            monkeypatch.delenv("DRAUPNIR_TOKEN", raising=False)
        else:
            monkeypatch.setenv("DRAUPNIR_TOKEN", token)
        clock = Clock()
        session = Invocation(open_http=open_fake, pause=clock.pause, now=clock.now)
        if browser is not None:
            session.has_terminal, session.open_browser = (lambda: True), browser
            monkeypatch.setenv("DISPLAY", ":0")
        return click.testing.CliRunner(mix_stderr=False).invoke(
            program, arguments, input=given, obj=session, prog_name="draupnir-client", catch_exceptions=False
        )

    return invoke


@pytest.fixture
def address(server: FakeServer) -> Iterator[str]:
    """Provide the url of the fake server, for tests with a separate process."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            request = httpx.Request(
                self.command, f"http://server{self.path}", headers=dict(self.headers), content=content
            )
            answer = server.answer(request)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name is http.server's
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()
