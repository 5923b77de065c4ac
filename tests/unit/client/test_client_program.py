"""Laws of the program as a whole: signing in, help, completion, and Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from draupnir_client import __version__, config
from draupnir_client.cli import program

from .conftest import TOKEN, FakeServer, Run, image, instance


def test_authenticate_keeps_a_token_that_the_server_accepts(run: Run, server: FakeServer) -> None:
    result = run("authenticate", given=f"{TOKEN}\n", token=None)
    assert (result.exit_code, result.stdout) == (0, "")
    assert config.read() == config.Saved(url="http://127.0.0.1:8432", token=TOKEN)
    assert "http://127.0.0.1:8432 accepts the token" in result.stderr
    assert TOKEN not in result.stderr
    server.images = {1: image(1)}
    assert run("images", "list", token=None).exit_code == 0


def test_authenticate_does_not_keep_a_token_that_is_not_accepted(run: Run) -> None:
    result = run("authenticate", given="wrong\n", token=None)
    assert result.exit_code == 4
    assert config.read() == config.Saved()


@pytest.mark.parametrize("source", ["file", "-"])
def test_authenticate_reads_the_token_from_a_file(run: Run, tmp_path: Path, source: str) -> None:
    (tmp_path / "secret").write_text(f"{TOKEN}\n")
    name = str(tmp_path / "secret") if source == "file" else "-"
    assert run("authenticate", "--token-file", name, given=TOKEN, token=None).exit_code == 0
    assert config.read().token == TOKEN


def test_authenticate_saves_the_given_url(run: Run) -> None:
    assert run("--url", "https://my-draupnir.tld", "authenticate", given=TOKEN, token=None).exit_code == 0
    assert config.read() == config.Saved(url="https://my-draupnir.tld", token=TOKEN)


def test_a_token_in_the_environment_that_wins_is_reported(run: Run) -> None:
    assert "DRAUPNIR_TOKEN" in run("authenticate", given=TOKEN, token="another").stderr


def test_nothing_is_sent_in_the_clear_to_try_a_token(run: Run, server: FakeServer) -> None:
    assert run("--url", "http://my-draupnir.tld", "authenticate", given=TOKEN, token=None).exit_code == 1
    assert server.asked == []


def test_a_person_is_asked_and_what_they_type_is_not_shown(address: str) -> None:
    person, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "draupnir_client", "--url", address, "authenticate"],
        stdin=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    seen = b""
    while b"Token for" not in seen:
        seen += os.read(person, 4096)
    # Input before the echo is off is discarded.
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        assert process.poll() is None
    os.close(terminal)
    os.write(person, f"{TOKEN}\n".encode())
    while b"accepts the token" not in seen:
        seen += os.read(person, 4096)
    assert process.wait() == 0
    os.close(person)
    assert TOKEN.encode() not in seen
    assert config.read().token == TOKEN


@pytest.mark.parametrize("group", [[], ["tokens"], ["images"], ["instances"], ["config"]])
def test_help_is_a_command_of_every_group(run: Run, group: list[str]) -> None:
    result = run(*group, "help", token=None)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == run(*group, "--help", token=None).stdout
    assert f"Usage: {' '.join(['draupnir-client', *group])} " in result.stdout


def test_no_summary_of_a_command_is_truncated(run: Run) -> None:
    for group in ([], ["tokens"], ["images"], ["instances"], ["config"]):
        assert "..." not in run(*group, "help").stdout.partition("Commands:")[2]


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version").stdout == f"draupnir-client {__version__}\n"


def test_the_version_is_that_of_the_server() -> None:
    import draupnir

    assert __version__ == draupnir.__version__


def completed(line: str, address: str) -> list[str]:
    environment = {
        **os.environ,
        "_DRAUPNIR_CLIENT_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
        "DRAUPNIR_URL": address,
        "DRAUPNIR_TOKEN": TOKEN,
    }
    result = subprocess.run(
        [sys.executable, "-m", "draupnir_client"], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stderr == ""
    return [item.partition(",")[2] for item in result.stdout.split()]


def test_the_shell_completes_commands_and_ids(address: str, server: FakeServer) -> None:
    server.images = {number: image(number) for number in (3, 14, 15)}
    server.instances = {4: instance(4)}
    assert completed("draupnir-client ins", address) == ["instances"]
    assert completed("draupnir-client instances create 1", address) == ["14", "15"]
    assert completed("draupnir-client instances destroy ", address) == ["4"]
    assert completed("draupnir-client env ", address) == ["4"]


def test_completion_is_silent_when_the_server_is_unreachable() -> None:
    assert completed("draupnir-client env ", "http://127.0.0.1:1") == []
    assert completed("draupnir-client env ", "nonsense") == []


def test_the_completion_script_is_clicks_own() -> None:
    environment = {**os.environ, "_DRAUPNIR_CLIENT_COMPLETE": "bash_source"}
    result = subprocess.run(
        [sys.executable, "-m", "draupnir_client"], env=environment, capture_output=True, text=True, check=True
    )
    assert "_DRAUPNIR_CLIENT_COMPLETE=bash_complete" in result.stdout


def test_a_locale_that_cannot_show_a_character_is_not_an_error(address: str, server: FakeServer) -> None:
    server.images = {1: image(1, anonymisation_script="-- ł")}
    result = subprocess.run(
        [sys.executable, "-m", "draupnir_client", "images", "show", "1"],
        env={**os.environ, "DRAUPNIR_URL": address, "DRAUPNIR_TOKEN": TOKEN, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert b"-- \\u0142" in result.stdout


def test_output_that_cannot_be_written_is_reported(address: str, server: FakeServer) -> None:
    server.images = {1: image(1)}
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "draupnir_client", "images", "list"],
            env={**os.environ, "DRAUPNIR_URL": address, "DRAUPNIR_TOKEN": TOKEN},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode != 0
    assert result.stderr.startswith("draupnir-client: ")


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield " ".join([*names, name]), command


def test_the_manual_page_knows_every_command_and_option() -> None:
    page = Path(__file__).parents[3] / "packaging/man/draupnir-client.1"
    text = page.read_text(encoding="utf-8").replace("\\-", "-")
    for name, command in commands(program):
        assert name in text
        for option in (option for parameter in command.params for option in parameter.opts if option.startswith("-")):
            assert option in text


GLOBAL = {"--output", "--url", "--help", "-h"}


def test_the_manual_page_lists_the_options_of_each_command_beside_its_name() -> None:
    page = (Path(__file__).parents[3] / "packaging/man/draupnir-client.1").read_text(encoding="utf-8")
    plain = re.sub(r'^\.[BIR]+ |\\f[BIRP]|"', "", page.replace("\\-", "-"), flags=re.MULTILINE)
    headings = re.findall(r"^\.TP\n(.+)$", plain, re.MULTILINE)
    for name, command in commands(program):
        if name.split()[-1] != "help":
            heading = " ".join(each for each in headings if re.match(rf"{name}( |$)", each))
            given = [option for parameter in command.params for option in parameter.opts if option.startswith("-")]
            missing = [option for option in given if option not in heading and option not in GLOBAL]
            assert not missing, f"{name}: {heading}"
