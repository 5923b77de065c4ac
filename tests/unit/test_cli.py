"""Laws of the operator's command: it explains errors in one sentence, and has exit codes for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from draupnir import cli, shared_secret, upload_keys
from draupnir.doctor import examination, findings
from draupnir.doctor.findings import Finding
from draupnir.serving import listeners

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f backup"


@pytest.fixture
def run() -> CliRunner:
    return CliRunner()


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "upload_keys"
    monkeypatch.setattr(upload_keys, "PATH", path)
    return path


def test_every_command_explains_itself(run: CliRunner) -> None:
    for arguments in ([], ["serve"], ["doctor"], ["upload-key"], ["upload-key", "add"]):
        result = run.invoke(cli.main, [*arguments, "--help"])
        assert result.exit_code == 0
        assert "Usage:" in result.output


def test_a_key_is_added_from_file_or_stdin_and_removed_by_number(run: CliRunner, keys: Path) -> None:
    added = run.invoke(cli.main, ["upload-key", "add", "-"], input=KEY + "\n")
    assert added.exit_code == 0, added.output
    assert "SHA256:" in added.output
    listed = run.invoke(cli.main, ["upload-key", "list"])
    assert listed.output.startswith("1\t256 SHA256:")
    assert run.invoke(cli.main, ["upload-key", "remove", "1"]).output == f"removed {KEY}\n"
    assert keys.read_text() == ""


@pytest.mark.parametrize(
    "arguments", [["add", "/dev/null"], ["add", "/nonexistent.pub"], ["remove", "1"], ["remove"], ["add"], ["x"]]
)
def test_a_key_command_that_cannot_be_done_fails_with_a_sentence(
    run: CliRunner, keys: Path, arguments: list[str]
) -> None:
    result = run.invoke(cli.main, ["upload-key", *arguments])
    assert result.exit_code in {1, 2}
    assert "Error: " in result.output
    assert not keys.exists()


def test_a_daemon_with_a_bad_configuration_does_not_start_and_names_the_line(
    run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("prot = 1\n")
    monkeypatch.setattr(cli, "CONFIG_PATH", config)
    result = run.invoke(cli.main, ["serve"])
    assert result.exit_code == 78
    assert f"{config}:1: prot" in result.output


@pytest.mark.parametrize(
    ("handed_over", "words"),
    [
        (None, "no credentials"),
        ({}, "oidc_client_secret"),
        ({"oidc_client_secret": " ", "refresh_token_key": " "}, "/etc/draupnir/oidc_client_secret is missing"),
        ({"oidc_client_secret": "a canary\n", "refresh_token_key": " "}, "more than one line"),
        ({"oidc_client_secret": "canary\n"}, "refresh_token_key"),
        ({"oidc_client_secret": "canary\n", "refresh_token_key": " "}, "/etc/draupnir/refresh_token_key is missing"),
    ],
    ids=str,
)
def test_a_daemon_without_key_or_secret_does_not_start_and_gives_advice(
    run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handed_over: dict[str, str] | None, words: str
) -> None:
    config, secret = tmp_path / "config.toml", tmp_path / "shared_secret"
    config.write_text(
        "trusted_user_email_domain = '@example.com'\n[oidc]\nclient_id = 'x'\n"
        "redirect_url = 'https://db.example.com/oauth_callback'\n"
    )
    secret.write_text("a-secret-for-tests-only-of-some-length")
    for name, content in (handed_over or {}).items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(cli, "CONFIG_PATH", config)
    monkeypatch.setattr(shared_secret, "PATH", secret)
    monkeypatch.setattr(listeners, "inherit", lambda: SimpleNamespace(sockets=[object()]))
    if handed_over is None:
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    else:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    result = run.invoke(cli.main, ["serve"])
    assert result.exit_code == 78
    assert words in result.output
    assert "canary" not in result.output


@pytest.mark.parametrize(
    ("found", "exit_code"),
    [
        ([findings.ok("a", "fine")], 0),
        ([findings.ok("a", "fine"), findings.warning("b", "low", "do this")], 0),
        ([findings.bad("a", "broken", "fix it"), findings.ok("b", "fine")], 1),
    ],
)
def test_doctor_fails_only_when_something_is_broken(
    run: CliRunner, monkeypatch: pytest.MonkeyPatch, found: list[Finding], exit_code: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(examination, "examine", lambda: found)
    for_people = run.invoke(cli.main, ["doctor"])
    assert for_people.exit_code == exit_code
    assert len(for_people.output.splitlines()) == len(found)
    for_programs = run.invoke(cli.main, ["doctor", "--output", "json"])
    assert for_programs.exit_code == exit_code
    answer = json.loads(for_programs.output)
    assert answer["ok"] is (exit_code == 0)
    assert [each["verdict"] for each in answer["findings"]] == [each.verdict.value for each in found]


def test_doctor_asks_to_be_root(run: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = run.invoke(cli.main, ["doctor"])
    assert result.exit_code == 1
    assert "sudo draupnir doctor" in result.output
