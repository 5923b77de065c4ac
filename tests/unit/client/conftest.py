"""A home of its own for every test, and a small server that speaks the API as design.md section 8 has it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import click.testing
import httpx
import pytest

from draupnir_client.cli import program
from draupnir_client.commands import Session
from draupnir_client.config import Config

TOKEN = "the-secret"
ME = "upload"
CREDENTIALS = {
    "ca_certificate": "-----BEGIN CERTIFICATE-----\nCA\n-----END CERTIFICATE-----\n",
    "client_certificate": "-----BEGIN CERTIFICATE-----\nCLIENT\n-----END CERTIFICATE-----\n",
    "client_key": "-----BEGIN PRIVATE KEY-----\nKEY\n-----END PRIVATE KEY-----\n",
    "user": "draupnir",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and no setting of the person who runs the tests."""
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(directory))
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "DRAUPNIR_URL", "DRAUPNIR_TOKEN", "PGDATABASE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return directory


def image(number: int, status: str = "ready", **attributes: object) -> dict[str, Any]:
    """An image object of the API."""
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
    """An instance object of the API, without credentials."""
    common = {
        "created_at": "2017-05-01T16:00:00Z",
        "updated_at": "2017-05-01T16:00:00Z",
        "image_id": image_id,
        "port": "6543",
        "status": "running",
        "sleep_after": 1800,
        "network": "proxied",
        "hostname": "my-draupnir.tld",
        "owner": ME,
    }
    return {"type": "instances", "id": number, "attributes": common | attributes}


@dataclass
class FakeServer:
    """Images and instances in memory, seen by an admin.

    `script` holds what the next GETs of an image answer, before the stored image.
    """

    images: dict[int, dict[str, Any]] = field(default_factory=dict)
    instances: dict[int, dict[str, Any]] = field(default_factory=dict)
    script: list[dict[str, Any] | int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    headers: list[httpx.Headers] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer as the API would."""
        self.asked.append(f"{request.method} {request.url.raw_path.decode()}")
        self.bodies.append(json.loads(request.content) if request.content else None)
        self.headers.append(request.headers)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return problem(401, "unauthorized", "The token is not one that is known here.")
        match request.method, request.url.path.strip("/").split("/"):
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
                shown = with_credentials(found) if owner_of(found) == ME else found
                return httpx.Response(200, json={"data": shown})
            case "DELETE", ["instances", number] if self.instances.pop(int(number), None):
                return httpx.Response(204)
            case _, ["instances", number]:
                return problem(404, "not_found", f"There is no instance {number} of yours.")
        return problem(404, "not_found", "There is no such thing.")

    def _made(self, kind: dict[int, dict[str, Any]], thing: dict[str, Any]) -> httpx.Response:
        kind[thing["id"]] = thing
        return httpx.Response(201, json={"data": thing})

    def _make_instance(self, image_id: int, **attributes: object) -> httpx.Response:
        if image_id not in self.images:
            return problem(404, "not_found", f"There is no image {image_id}.")
        if not self.images[image_id]["attributes"]["ready"]:
            return problem(422, "image_not_ready", f"Image {image_id} is not ready; finalise it first.")
        made = instance(max(self.instances, default=0) + 1, image_id, **attributes)
        self.instances[made["id"]] = made
        return httpx.Response(201, json={"data": with_credentials(made)})

    def _one_image(self, method: str, number: int, rest: list[str]) -> httpx.Response:
        if number not in self.images:
            return problem(404, "not_found", f"There is no image {number}.")
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


def with_credentials(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "attributes": {**found["attributes"], "credentials": CREDENTIALS}}


def problem(status: int, code: str, detail: str) -> httpx.Response:
    """An error answer of the API."""
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
        self, *arguments: str, given: str | bytes | None = None, token: str | None = TOKEN
    ) -> click.testing.Result: ...


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    def open_fake(settled: Config, timeout_s: float) -> httpx.Client:
        from draupnir_client.api import open_http

        with open_http(settled, timeout_s) as real:
            return httpx.Client(
                transport=httpx.MockTransport(server.answer), base_url=real.base_url, headers=real.headers
            )

    def invoke(*arguments: str, given: str | bytes | None = None, token: str | None = TOKEN) -> click.testing.Result:
        if token is None:
            monkeypatch.delenv("DRAUPNIR_TOKEN", raising=False)
        else:
            monkeypatch.setenv("DRAUPNIR_TOKEN", token)
        clock = Clock()
        session = Session(open_http=open_fake, pause=clock.pause, now=clock.now)
        return click.testing.CliRunner(mix_stderr=False).invoke(
            program, arguments, input=given, obj=session, prog_name="draupnir-client", catch_exceptions=False
        )

    return invoke


@pytest.fixture
def address(server: FakeServer) -> Iterator[str]:
    """The url at which the fake server listens, for tests that need a process of their own."""

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
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()
