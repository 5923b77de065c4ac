"""Laws of failure: a sentence on stderr that says what to do, nothing on stdout, and an exit code for each kind."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from draupnir_client.api import DraupnirAPI, open_http
from draupnir_client.config import Config
from draupnir_client.errors import (
    BadAnswer,
    ClientError,
    ConfigError,
    ExitCode,
    Refused,
    ServerUnreachable,
    Unauthorized,
)
from draupnir_client.urls import parse_url

from .conftest import FakeServer, Run, image, instance, problem


def api_answering(answer: httpx.Response | Exception) -> DraupnirAPI:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return DraupnirAPI(httpx.Client(transport=httpx.MockTransport(handle), base_url="https://my-draupnir.tld"))


def failure_of(answer: httpx.Response | Exception, kind: type[ClientError]) -> str:
    with pytest.raises(ClientError) as caught:
        api_answering(answer).create_instance(3)
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["instances", "create", "9"], ExitCode.NOT_FOUND, "Image 9 not found"),
        (["instances", "create", "2"], ExitCode.REFUSED, "finalise it first"),
        (["instances", "destroy", "9"], ExitCode.NOT_FOUND, "Instance 9 not found"),
        (["images", "destroy", "1"], ExitCode.REFUSED, "--cascade"),
        (["images", "show", "9"], ExitCode.NOT_FOUND, "Image 9 not found"),
        (["env", "9"], ExitCode.NOT_FOUND, "Instance 9 not found"),
        (["psql", "9"], ExitCode.NOT_FOUND, "Instance 9 not found"),
        (["instances", "create", "three"], ExitCode.USAGE, "three"),
        (["instances", "create", "0"], ExitCode.USAGE, "0"),
        (["instances", "create"], ExitCode.USAGE, "IMAGE_ID"),
        (["images", "update", "1"], ExitCode.USAGE, "--script"),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(
    run: Run, server: FakeServer, arguments: list[str], code: ExitCode, words: str
) -> None:
    server.images = {1: image(1), 2: image(2, "awaiting_upload")}
    server.instances = {1: instance(1, image_id=1)}
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr


def test_without_a_token_nothing_is_sent(run: Run, server: FakeServer) -> None:
    result = run("images", "list", token=None)
    assert (result.exit_code, server.asked) == (ExitCode.UNAUTHORIZED, [])
    assert "draupnir-client authenticate" in result.stderr


def test_a_refused_token_is_reported_with_advice(run: Run) -> None:
    result = run("images", "list", token="wrong")
    assert result.exit_code == ExitCode.UNAUTHORIZED
    assert "draupnir-client authenticate" in result.stderr


def test_the_token_is_not_sent_in_the_clear_over_a_network(run: Run, server: FakeServer) -> None:
    result = run("--url", "http://my-draupnir.tld", "images", "list")
    assert (result.exit_code, server.asked) == (ExitCode.FAILED, [])
    assert "https://" in result.stderr


def test_a_saved_token_is_not_sent_elsewhere(run: Run, server: FakeServer) -> None:
    run("config", "set", "url", "https://mine.tld", token=None)
    run("config", "set", "token", "secret", token=None)
    result = run("--url", "https://evil.tld", "images", "list", token=None)
    assert (result.exit_code, server.asked) == (ExitCode.UNAUTHORIZED, [])
    assert "saved token is for https://mine.tld" in result.stderr


def test_redirects_are_not_followed() -> None:
    assert "https://evil.tld/x" in failure_of(
        httpx.Response(302, headers={"Location": "https://evil.tld/x"}), BadAnswer
    )


def test_a_proxy_never_sees_the_token_of_a_local_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.tld:3128")
    with open_http(Config(parse_url("http://127.0.0.1:8432"), "secret", "postgres")) as http:
        assert not http.trust_env


def test_a_proxy_that_cannot_be_used_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy.tld")
    with pytest.raises(ConfigError, match="proxy"):
        open_http(Config(parse_url("https://my-draupnir.tld"), "secret", "postgres"))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>hello"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"data": None}),
        httpx.Response(200, json={"data": {"type": "images", "id": 1, "attributes": {}}}),
        httpx.Response(
            200, json={"data": {"type": "instances", "id": True, "attributes": {"image_id": 1, "port": "1"}}}
        ),
        httpx.Response(200, json={"data": {"type": "instances", "id": 1, "attributes": {"image_id": 1, "port": "x"}}}),
        httpx.Response(200, content=b"\xff"),
        httpx.Response(404, text="nginx"),
        httpx.Response(502, json={"errors": []}),
        httpx.Response(500, json={"errors": "x"}),
    ],
)
def test_an_answer_that_is_not_draupnirs_says_to_check_the_url(answer: httpx.Response) -> None:
    assert "url" in failure_of(answer, BadAnswer)


def test_the_detail_of_the_server_is_shown() -> None:
    answer = problem(409, "nothing_uploaded", "There is nothing yet; upload the backup first.")
    with pytest.raises(Refused, match="There is nothing yet; upload the backup first.") as caught:
        api_answering(answer).finalise_image(1)
    assert caught.value.code == "nothing_uploaded"


@pytest.mark.parametrize("code", ["too_many_instances", "too_many_tokens"])
def test_a_quota_error_gives_no_advice_to_wait(code: str) -> None:
    answer = problem(429, code, "jane@example.com has 20 instances: 1, 2. Destroy an unused one.")
    assert "20 instances: 1, 2. Destroy an unused one." in failure_of(answer, Refused)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_temporary_failure_differs_from_a_refusal(status: int) -> None:
    assert "later" in failure_of(problem(status, "unavailable", "Try later."), ServerUnreachable)


@pytest.mark.parametrize("error", [httpx.ReadTimeout(""), httpx.RemoteProtocolError("cut"), httpx.ReadError("reset")])
def test_a_lost_answer_warns_that_the_change_may_be_done(error: Exception) -> None:
    assert "may have executed the request" in failure_of(error, ServerUnreachable)


@pytest.mark.parametrize(
    "error", [httpx.ConnectTimeout(""), httpx.ConnectError("no route"), httpx.ProxyError("denied")]
)
def test_an_unsent_change_gives_no_warning(error: Exception) -> None:
    assert "may have executed the request" not in failure_of(error, ServerUnreachable)


def real_failure(url: str) -> str:
    with open_http(Config(parse_url(url), "secret", "postgres")) as http, pytest.raises(ServerUnreachable) as caught:
        DraupnirAPI(http).list_images()
    return str(caught.value)


def test_a_refused_connection_says_that_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert "nothing listens" in real_failure(f"http://127.0.0.1:{taken.getsockname()[1]}")


def test_an_unknown_host_is_named() -> None:
    assert "host name of https://no-such-host.invalid cannot be resolved" in real_failure(
        "https://no-such-host.invalid"
    )


def test_tls_to_a_plain_server_says_to_check_the_scheme(address: str) -> None:
    assert "TLS with" in real_failure(address.replace("http://", "https://"))


def test_a_certificate_of_an_unknown_authority_is_not_trusted(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def refuse_to_be_trusted(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=refuse_to_be_trusted, args=(listening,))
        thread.start()
        words = real_failure(f"https://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert "is not trusted" in words
    assert "SSL_CERT_FILE" in words


@pytest.mark.parametrize(
    "arguments", [["images", "list"], ["instances", "create", "3"], ["env", "4"], ["new"], ["images", "finalise", "1"]]
)
def test_a_failure_is_never_a_traceback(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAUPNIR_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("DRAUPNIR_TOKEN", "secret")
    result = subprocess.run(
        [sys.executable, "-m", "draupnir_client", *arguments], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (ExitCode.UNREACHABLE, "")
    assert re.fullmatch(r"draupnir-client: Cannot [^\n]+\.\n", result.stderr)


def test_a_closed_stdout_is_not_reported(address: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.images = {number: image(number, anonymisation_script="x" * 100_000) for number in range(1, 9)}
    monkeypatch.setenv("DRAUPNIR_URL", address)
    monkeypatch.setenv("DRAUPNIR_TOKEN", "the-secret")
    program = f"set -o pipefail; {sys.executable} -m draupnir_client --output json images list | head -c 10"
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert result.stderr == ""


def test_unauthorized_is_raised_before_any_request() -> None:
    with pytest.raises(Unauthorized):
        open_http(Config(parse_url("https://my-draupnir.tld"), None, "postgres"))
