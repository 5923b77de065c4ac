"""Laws of signing in and out: a new session is saved, and a failed sign-in loses nothing."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from draupnir_client import config, sign_ins
from draupnir_client.errors import ExitCode

from .conftest import END, JANE, TOKEN, FakeServer, Run

Browser = Callable[[str], bool]


@pytest.fixture(autouse=True)
def people(server: FakeServer) -> None:
    server.people = True


@pytest.fixture
def browser(server: FakeServer) -> Browser:
    """Complete the sign-in, and send the code to the client's listener."""

    def follow(url: str) -> bool:
        code, port = server.vouch(url)
        return httpx.get(f"http://127.0.0.1:{port}/?code={code}", trust_env=False, timeout=10).is_success

    return follow


def bringing(server: FakeServer, query: str) -> Browser:
    def follow(url: str) -> bool:
        _, port = server.vouch(url)
        return httpx.get(f"http://127.0.0.1:{port}/?{query}", trust_env=False, timeout=10).is_success

    return follow


def signed_in(server: FakeServer, **attributes: object) -> str:
    token = server.session(**attributes)
    config.save(url="http://127.0.0.1:8432", token=token)
    return token


def test_a_browser_signs_in_and_the_session_is_kept(run: Run, server: FakeServer, browser: Browser) -> None:
    result = run("authenticate", token=None, browser=browser)
    assert (result.exit_code, result.stdout) == (0, "")
    (kept,) = server.tokens
    assert config.read() == config.Saved(url="http://127.0.0.1:8432", token=kept)
    assert config.path().stat().st_mode & 0o777 == 0o600
    assert f"as {JANE} (user) until {END}" in result.stderr
    assert kept not in result.stderr
    assert "one-time-code" not in result.stderr


def test_a_sign_in_sends_no_token(run: Run, server: FakeServer, browser: Browser) -> None:
    signed_in(server)
    run("authenticate", "--force", token=None, browser=browser)
    by_path = dict(zip(server.asked, server.headers, strict=True))
    for path in ("POST /sign_ins", "POST /sessions"):
        assert "authorization" not in by_path[path]


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("error=sign_in_refused", ExitCode.UNAUTHORIZED, "did not confirm"),
        ("error=provider_unavailable", ExitCode.UNREACHABLE, "try again in a moment"),
        ("error=something_new", ExitCode.UNAUTHORIZED, "something_new"),
        ("code=of-another-sign-in-altogether", ExitCode.UNAUTHORIZED, "code is wrong"),
    ],
)
def test_a_sign_in_that_fails_says_why_and_loses_nothing(
    run: Run, server: FakeServer, query: str, code: ExitCode, words: str
) -> None:
    old = signed_in(server)
    result = run("authenticate", "--force", token=None, browser=bringing(server, query))
    assert (result.exit_code, words in result.stderr) == (code, True)
    assert config.read().token == old
    assert old in server.tokens


def test_a_valid_token_is_kept(run: Run, server: FakeServer, browser: Browser) -> None:
    old = signed_in(server)
    result = run("authenticate", token=None, browser=browser)
    assert (result.exit_code, config.read().token, server.sign_ins) == (0, old, {})
    assert JANE in result.stderr
    assert "--force" in result.stderr


def test_an_invalid_token_is_replaced(run: Run, server: FakeServer, browser: Browser) -> None:
    del server.tokens[signed_in(server)]
    server.session()
    assert run("authenticate", token=None, browser=browser).exit_code == 0
    assert config.read().token in server.tokens


def test_force_ends_the_old_session_only_when_the_new_one_is_there(
    run: Run, server: FakeServer, browser: Browser
) -> None:
    old = signed_in(server)

    def follow(url: str) -> bool:
        assert old in server.tokens
        assert config.read().token == old
        return browser(url)

    server.session()
    assert run("authenticate", "--force", token=None, browser=follow).exit_code == 0
    assert old not in server.tokens
    assert config.read().token in server.tokens


def test_force_does_not_end_a_token_that_programs_use(run: Run, server: FakeServer, browser: Browser) -> None:
    old = signed_in(server, kind="named", name="ci")
    assert run("authenticate", "--force", token=None, browser=browser).exit_code == 0
    assert old in server.tokens
    assert config.read().token not in (None, old)


def test_a_browser_that_cannot_be_opened_leaves_the_link(run: Run, server: FakeServer, browser: Browser) -> None:
    def broken(url: str) -> bool:
        browser(url)
        return False

    assert "https://my-draupnir.tld/authenticate?sign_in=" in run("authenticate", token=None, browser=broken).stderr


def test_the_wait_ends_when_the_link_expires(run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_ins, "LONGEST_WAIT_S", 0.0)
    result = run("authenticate", token=None, browser=lambda url: True)
    assert (result.exit_code, "expired before" in result.stderr) == (ExitCode.UNAUTHORIZED, True)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "--help", "javascript:alert(1)", "https://x y", ""])
def test_no_other_link_is_opened(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch, browser: Browser, url: str
) -> None:
    answer = {"type": "sign_ins", "attributes": {"url": url, "expires_at": END}}
    monkeypatch.setattr(server, "answer", lambda request: httpx.Response(201, json={"data": answer}))
    result = run("authenticate", token=None, browser=lambda link: pytest.fail(f"{link} was opened"))
    assert (result.exit_code, "valid link" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"BROWSER": "wslview"}, True),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"}, False),
    ],
)
def test_a_browser_counts_if_the_user_can_see_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert sign_ins.has_browser() is expected


class Terminal:
    """The client in a separate process, at a terminal."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.person, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "draupnir_client", *arguments],
            stdin=terminal,
            stderr=terminal,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        os.close(terminal)
        self.seen = ""

    def wait_for(self, words: str) -> str:
        while words not in self.seen:
            self.seen += os.read(self.person, 4096).decode()
        return self.seen

    def end(self) -> int:
        try:
            while piece := os.read(self.person, 4096):
                self.seen += piece.decode()
        except OSError:
            # The error of a terminal whose other end is closed.
            pass
        os.close(self.person)
        return self.process.wait(10)


def test_a_code_is_pasted_where_there_is_no_browser(address: str, server: FakeServer) -> None:
    terminal = Terminal("--url", address, "authenticate", "--no-browser")
    terminal.wait_for("Paste the code")
    (url,) = server.sign_ins
    assert url in terminal.seen
    code, port = server.vouch(url)
    assert port is None
    terminal.wait_for("hidden): ")
    os.write(terminal.person, f" {code} \n".encode())
    assert terminal.end() == 0, terminal.seen
    assert f"as {JANE}" in terminal.seen
    assert code not in terminal.seen
    assert config.read().token in server.tokens


def test_ctrl_c_while_the_browser_is_waited_for_is_clean(address: str, server: FakeServer) -> None:
    old = signed_in(server)
    terminal = Terminal("--url", address, "authenticate", "--force", environment={"BROWSER": "true"})
    terminal.wait_for("Ctrl-C ends the wait")
    os.kill(terminal.process.pid, signal.SIGINT)
    assert terminal.end() == ExitCode.INTERRUPTED
    assert "Traceback" not in terminal.seen
    assert terminal.seen.rstrip().endswith("draupnir-client: Interrupted.")
    assert (config.read().token, old in server.tokens) == (old, True)


def test_the_browser_of_the_environment_is_opened(address: str, server: FakeServer, tmp_path: Path) -> None:
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\nprintf %s "$1" >{tmp_path}/partial\nmv {tmp_path}/partial {tmp_path}/link\n')
    script.chmod(0o755)
    terminal = Terminal("--url", address, "authenticate", environment={"BROWSER": str(script)})
    terminal.wait_for("Ctrl-C ends the wait")
    while not (tmp_path / "link").exists():
        assert terminal.process.poll() is None
    code, port = server.vouch((tmp_path / "link").read_text())
    assert httpx.get(f"http://127.0.0.1:{port}/favicon.ico", trust_env=False).status_code == 404
    assert "signed in" in httpx.get(f"http://127.0.0.1:{port}/?code={code}", trust_env=False).text
    assert terminal.end() == 0
    assert code not in terminal.seen
    assert config.read().token in server.tokens


def test_signing_out_ends_the_session_here_and_there(run: Run, server: FakeServer) -> None:
    signed_in(server)
    result = run("sign-out", token=None)
    assert (result.exit_code, server.tokens, config.read().token) == (0, {}, None)
    assert JANE in result.stderr


def test_signing_out_of_an_unreachable_server_changes_nothing() -> None:
    config.save(url="http://127.0.0.1:1", token="dru_x")
    again = [sys.executable, "-m", "draupnir_client", "sign-out"]
    away = subprocess.run(again, capture_output=True, text=True, check=False)
    assert (away.returncode, config.read().token) == (ExitCode.UNREACHABLE, "dru_x")
    assert "--local" in away.stderr
    here = subprocess.run([*again, "--local"], capture_output=True, text=True, check=False)
    assert (here.returncode, config.read().token) == (0, None)


@pytest.mark.parametrize("kind", ["named", "shared_secret"])
def test_signing_out_only_removes_a_token_that_is_not_a_session(run: Run, server: FakeServer, kind: str) -> None:
    token = signed_in(server, kind=kind)
    assert "stays valid" in run("sign-out", token=None).stderr
    assert (list(server.tokens), config.read().token) == ([token], None)


def test_signing_out_twice_is_not_an_error(run: Run, server: FakeServer) -> None:
    del server.tokens[signed_in(server)]
    assert "already" in run("sign-out", token=None).stderr
    assert config.read().token is None
    assert run("sign-out", token=None).exit_code == 0


def test_signing_out_leaves_the_token_of_the_environment_alone(run: Run, server: FakeServer) -> None:
    signed_in(server)
    programs = server.session(kind="named")
    assert "DRAUPNIR_TOKEN" in run("sign-out", token=programs).stderr
    assert list(server.tokens) == [programs]


@pytest.mark.parametrize("local", [[], ["--local"]])
def test_the_token_of_another_server_is_not_signed_out(run: Run, server: FakeServer, local: list[str]) -> None:
    token = signed_in(server)
    result = run("--url", "https://other.tld", "sign-out", *local, token=None)
    assert (result.exit_code, config.read().token, server.asked) == (ExitCode.UNAUTHORIZED, token, [])


def test_whoami_prints_identity_kind_and_expiry(run: Run, server: FakeServer) -> None:
    session = server.session()
    shown = run("whoami", token=session).stdout
    assert all(words in shown for words in (JANE, "user", "session", END))
    assert json.loads(run("whoami", "--output", "json", token=session).stdout)["attributes"]["name"] == JANE
    assert "never" in run("whoami", token=TOKEN).stdout


def test_an_ended_session_is_reported(run: Run, server: FakeServer) -> None:
    del server.tokens[signed_in(server)]
    result = run("images", "list", token=None)
    assert result.exit_code == ExitCode.UNAUTHORIZED
    assert "signed out" in result.stderr
    assert "draupnir-client authenticate" in result.stderr
