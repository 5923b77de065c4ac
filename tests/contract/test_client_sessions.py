"""The client's sign-in and sign-out against the real application, an identity provider and a real loopback port."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import click.testing
import httpx
import pytest
from starlette.testclient import TestClient

from draupnir.app import create_app
from draupnir.operations.context import Context
from draupnir.operations.tasks import Tasks
from draupnir.settings import Settings
from draupnir.store import Store
from draupnir_client import config
from draupnir_client.api import open_http
from draupnir_client.cli import program
from draupnir_client.commands import Invocation
from draupnir_client.errors import ExitCode
from tests.fakes import CIPHER, FakeHelper, Probe
from tests.identity_provider import IdentityProvider
from tests.sign_in import JANE, Browser, code_of, configured, new_provider

SECRET = "a-secret-for-tests-only-of-32-bytes"


class Terminal(Protocol):
    """Runs a line of the client as at a terminal, in front of a browser."""

    def __call__(self, line: str, given: str | None = None) -> click.testing.Result: ...


@pytest.fixture(params=[True])
def people(request: pytest.FixtureRequest) -> bool:
    """Return whether an identity provider is configured."""
    return bool(request.param)


@pytest.fixture
def terminal(
    settings: Settings, helper: FakeHelper, probe: Probe, people: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    for name, value in (("HOME", tmp_path), ("XDG_CONFIG_HOME", tmp_path / "config"), ("DISPLAY", ":0")):
        monkeypatch.setenv(name, str(value))
    for name in ("DRAUPNIR_URL", "DRAUPNIR_TOKEN", "SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    idp: IdentityProvider = new_provider()
    made, sign_in = configured(settings, idp) if people else (settings, None)
    app = create_app(
        Context(made, Store(made.dsn), helper, Tasks(), probe, helper.wake, cipher=CIPHER, sign_in=sign_in),
        SECRET.encode(),
    )
    with TestClient(app) as http:

        def at_provider(url: str) -> httpx.Response:
            assert http.portal is not None
            answer: httpx.Response = http.portal.call(Browser(app, idp).sign_in, url, JANE)
            return answer

        def follow(url: str) -> bool:
            return httpx.get(at_provider(url).headers["location"], trust_env=False, timeout=10).is_success

        def connect(settled: config.Config, timeout_s: float, **how: Any) -> httpx.Client:
            with open_http(settled, timeout_s, **how) as real:
                return httpx.Client(transport=http._transport, base_url=real.base_url, headers=real.headers)

        def paste(text: str, **settings: object) -> str:
            # The text above the prompt has the link.
            (url,) = (word for word in said if word.startswith("http"))
            return code_of(at_provider(url))

        said: list[str] = []
        monkeypatch.setattr("draupnir_client.sign_ins.say", lambda text: said.extend(text.split()))
        if people:
            monkeypatch.setattr("draupnir_client.sign_ins.click.prompt", paste)

        def run(line: str, given: str | None = None) -> click.testing.Result:
            said.clear()
            session = Invocation(open_http=connect, has_terminal=lambda: True, open_browser=follow)
            runner = click.testing.CliRunner(mix_stderr=False)
            return runner.invoke(program, line.split(), input=given, obj=session, catch_exceptions=False)

        yield run


def known(terminal: Terminal) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(terminal("tokens list --output json").stdout)
    return listed


@pytest.mark.parametrize("line", ["authenticate", "authenticate --no-browser"])
def test_a_user_signs_in_and_out(terminal: Terminal, line: str) -> None:
    signed_in = terminal(line)
    assert (signed_in.exit_code, signed_in.stdout) == (0, ""), signed_in.stderr
    assert f"as {JANE} (user) until " in signed_in.stderr
    token = config.read().token
    assert token is not None
    assert token.startswith("dru_")
    who = json.loads(terminal("whoami --output json").stdout)["attributes"]
    assert (who["name"], who["role"], who["kind"], who["scope"]) == (JANE, "user", "session", "full")
    assert terminal("images list").exit_code == 0
    assert "--force" in terminal(line).stderr

    out = terminal("sign-out")
    assert (out.exit_code, config.read().token) == (0, None), out.stderr
    config.save(url="http://127.0.0.1:8432", token=token)
    refused = terminal("images list")
    assert (refused.exit_code, "signed out" in refused.stderr) == (ExitCode.UNAUTHORIZED, True)


def test_force_replaces_the_session_and_keeps_named_tokens(terminal: Terminal) -> None:
    terminal("authenticate")
    old = config.read().token
    assert terminal("tokens create ci").exit_code == 0
    assert terminal("authenticate --force").exit_code == 0
    assert config.read().token != old
    assert [(one["attributes"]["kind"], one["attributes"]["current"]) for one in known(terminal)] == [
        ("named", False),
        ("session", True),
    ]


def test_a_token_for_a_program_has_its_permissions_until_it_is_revoked(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal("authenticate")
    made = terminal("tokens create ci --read-only --expires-in 1d").stdout.strip()
    (number,) = (one["id"] for one in known(terminal) if one["attributes"]["name"] == "ci")
    assert terminal("tokens create ci").exit_code == ExitCode.REFUSED
    with monkeypatch.context() as programs:
        programs.setenv("DRAUPNIR_TOKEN", made)
        assert terminal("images list").exit_code == 0
        refused = terminal("instances create 1")
        assert (refused.exit_code, "read-only" in refused.stderr) == (ExitCode.REFUSED, True)
        assert terminal("tokens create more").exit_code == ExitCode.REFUSED
    assert terminal(f"tokens revoke {number}").exit_code == 0
    monkeypatch.setenv("DRAUPNIR_TOKEN", made)
    assert terminal("images list").exit_code == ExitCode.UNAUTHORIZED


@pytest.mark.parametrize("people", [False], indirect=True)
def test_without_a_provider_the_client_asks_for_the_shared_secret(terminal: Terminal) -> None:
    result = terminal("authenticate", given=f"{SECRET}\n")
    assert (result.exit_code, config.read().token) == (0, SECRET), result.stderr
    assert json.loads(terminal("whoami --output json").stdout)["attributes"]["kind"] == "shared_secret"
    assert "stays valid" in terminal("sign-out").stderr
