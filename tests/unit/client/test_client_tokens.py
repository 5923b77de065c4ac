"""Laws of named tokens: printed once and alone, requested with the given options, revoked at once."""

from __future__ import annotations

import json

import pytest

from draupnir_client.errors import ExitCode

from .conftest import FakeServer, Run


def test_a_new_token_stands_alone_on_standard_output(run: Run, server: FakeServer) -> None:
    result = run("tokens", "create", "ci", token=server.session())
    made = result.stdout.removesuffix("\n")
    assert (result.exit_code, made in server.tokens) == (0, True)
    assert made not in result.stderr
    assert server.bodies[-1]["data"] == {"type": "tokens", "attributes": {"name": "ci", "scope": "full"}}


def test_json_output_has_the_token_with_its_attributes(run: Run, server: FakeServer) -> None:
    made = json.loads(run("tokens", "create", "ci", "--output", "json", token=server.session()).stdout)
    assert made["attributes"]["token"] in server.tokens


def test_a_token_is_requested_with_the_given_options(run: Run, server: FakeServer) -> None:
    run("tokens", "create", "ci", "--read-only", "--expires-in", "30d", token=server.session())
    asked = server.bodies[-1]["data"]["attributes"]
    assert asked == {"name": "ci", "scope": "read_only", "expires_in": 30 * 86400}


def test_every_token_expires(run: Run, server: FakeServer) -> None:
    result = run("tokens", "create", "ci", "--expires-in", "never", token=server.session())
    assert (result.exit_code, server.asked) == (ExitCode.USAGE, [])
    assert "or never" not in result.stderr


def test_a_read_only_token_gets_a_clear_refusal(run: Run, server: FakeServer) -> None:
    result = run("tokens", "create", "ci", token=server.session(kind="named", scope="read_only"))
    assert (result.exit_code, result.stdout) == (ExitCode.REFUSED, "")
    assert "use a token with full scope" in result.stderr


def test_tokens_are_listed_and_never_shown(run: Run, server: FakeServer) -> None:
    session = server.session(current=True)
    programs = server.session(kind="named", name="ci", scope="read_only", current=False)
    listed = run("tokens", "list", token=session)
    headers, mine, other = listed.stdout.splitlines()
    assert headers.split()[:4] == ["ID", "NAME", "KIND", "SCOPE"]
    assert (mine.split()[-1], other.split()[:4], other.split()[-1]) == ("yes", ["2", "ci", "named", "read_only"], "no")
    assert programs not in listed.stdout
    found = json.loads(run("tokens", "list", "--output", "json", token=session).stdout)
    assert [one["id"] for one in found] == [1, 2]


def test_a_failed_revocation_does_not_stop_the_others(run: Run, server: FakeServer) -> None:
    session = server.session()
    server.session(kind="named")
    result = run("tokens", "revoke", "99", "2", token=session)
    assert (result.exit_code, list(server.tokens)) == (ExitCode.NOT_FOUND, [session])


@pytest.mark.parametrize("token_id", ["0", "ci"])
def test_an_invalid_id_is_reported(run: Run, server: FakeServer, token_id: str) -> None:
    assert run("tokens", "revoke", token_id, token=server.session()).exit_code == ExitCode.USAGE
