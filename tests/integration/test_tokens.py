"""Laws of tokens: each use determines its identity and role, which never exceed those of its creator."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from starlette.applications import Starlette

from draupnir.app import create_app
from draupnir.operations.context import Context
from tests.identity_provider import IdentityProvider
from tests.sign_in import BOSS, JANE, SECRET, Client, session

pytestmark = pytest.mark.anyio


@pytest.fixture
def secret(app: Starlette) -> Client:
    """Return a client with the shared secret."""
    return Client(app, SECRET)


def the_error(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    (error,) = answer.json()["errors"]
    assert error["code"] == code
    return str(error["detail"])


async def make(client: Client, **attributes: object) -> tuple[Client, dict[str, Any]]:
    """Return a client with a named token of the other client, and the answer that created it."""
    answer = await client.ask("POST", "/tokens", {"name": "ci", **attributes})
    assert answer.status_code == 201, answer.text
    data = answer.json()["data"]
    assert answer.headers["location"] == f"/tokens/{data['id']}"
    return Client(client.app, data["attributes"].pop("token")), data


async def role_of(client: Client, app: Starlette) -> str | None:
    answer = await dataclasses.replace(client, app=app).ask("GET", "/sessions/current")
    return answer.json()["data"]["attributes"]["role"] if answer.status_code == 200 else None


async def test_a_named_token_is_returned_once_and_shown_in_the_list(app: Starlette, idp: IdentityProvider) -> None:
    jane = await session(app, idp)
    program, made = await make(jane)
    assert made["type"] == "tokens"
    told = made["attributes"]
    assert (told["name"], told["kind"], told["scope"], told["current"]) == ("ci", "named", "full", False)
    lifetime = datetime.fromisoformat(told["expires_at"]) - datetime.fromisoformat(told["created_at"])
    assert abs(lifetime - timedelta(days=90)) < timedelta(minutes=1)
    listed = await program.ask("GET", "/tokens")
    mine, its = (each["attributes"] for each in listed.json()["data"])
    assert (mine["kind"], mine["current"], its["name"], its["current"]) == ("session", False, "ci", True)
    assert its["last_used_at"] is not None
    assert "dru_" not in listed.text
    me = (await program.ask("GET", "/sessions/current")).json()["data"]["attributes"]
    assert (me["name"], me["role"], me["kind"], me["scope"]) == (JANE, "user", "named", "full")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": ""}, "1 to 64"),
        ({"name": "a b"}, "1 to 64"),
        ({"name": "a/../b"}, "1 to 64"),
        ({"name": "x" * 65}, "1 to 64"),
        ({"name": 5}, "1 to 64"),
        ({"scope": "admin"}, "'full' or 'read_only'"),
        ({"expires_in": 0}, "number of seconds"),
        ({"expires_in": 366 * 24 * 3600 + 1}, "number of seconds"),
        ({"expires_in": True}, "number of seconds"),
        ({"owner": BOSS}, "cannot be set"),
        ({"kind": "session"}, "cannot be set"),
    ],
    ids=repr,
)
async def test_an_invalid_token_request_is_refused(
    app: Starlette, idp: IdentityProvider, wrong: dict[str, object], words: str
) -> None:
    jane = await session(app, idp)
    answer = await jane.ask("POST", "/tokens", {"name": "ci", **wrong})
    assert words in the_error(answer, 400, "invalid_request")


async def test_token_names_are_unique_per_owner(app: Starlette, idp: IdentityProvider) -> None:
    jane, boss = await session(app, idp), await session(app, idp, BOSS)
    await make(jane)
    assert "ci" in the_error(await jane.ask("POST", "/tokens", {"name": "ci"}), 409, "token_name_taken")
    await make(boss)


async def test_a_read_only_token_creates_no_token(app: Starlette, idp: IdentityProvider) -> None:
    looker, _ = await make(await session(app, idp), scope="read_only")
    assert (await looker.ask("GET", "/images")).status_code == 200
    for method, path in (("POST", "/tokens"), ("DELETE", "/tokens/1"), ("POST", "/instances"), ("POST", "/images")):
        the_error(await looker.ask(method, path, {"name": "more"}), 403, "forbidden")


async def test_a_read_only_token_signs_itself_out_and_revokes_no_other(app: Starlette, idp: IdentityProvider) -> None:
    jane = await session(app, idp)
    looker, made = await make(jane, scope="read_only")
    _, other = await make(jane, name="other")
    for token in (made, other):
        the_error(await looker.ask("DELETE", f"/tokens/{token['id']}"), 403, "forbidden")
    assert (await looker.ask("DELETE", "/sessions/current")).status_code == 204
    the_error(await looker.ask("GET", "/images"), 401, "unauthorized")
    left = {each["id"] for each in (await jane.ask("GET", "/tokens")).json()["data"]}
    assert other["id"] in left
    assert made["id"] not in left


async def test_a_token_made_with_a_token_does_not_outlive_it(app: Starlette, idp: IdentityProvider) -> None:
    parent, made = await make(await session(app, idp), expires_in=3600)
    _, child = await make(parent, name="child", expires_in=24 * 3600)
    assert child["attributes"]["expires_at"] == made["attributes"]["expires_at"]


async def test_an_expired_token_is_refused(signed: Context, app: Starlette, idp: IdentityProvider) -> None:
    jane = await session(app, idp)
    with psycopg.connect(signed.settings.dsn, autocommit=True) as connection:
        connection.execute("UPDATE tokens SET expires_at = now()")
    the_error(await jane.ask("GET", "/images"), 401, "unauthorized")


async def test_a_session_lasts_as_long_as_the_configuration_says(signed: Context, idp: IdentityProvider) -> None:
    settings = signed.settings.model_copy(update={"session_lifetime_s": 600})
    jane = await session(create_app(dataclasses.replace(signed, settings=settings), SECRET.encode()), idp)
    (told,) = (await jane.ask("GET", "/tokens")).json()["data"]
    lifetime = datetime.fromisoformat(told["attributes"]["expires_at"]) - datetime.fromisoformat(
        told["attributes"]["created_at"]
    )
    assert abs(lifetime.total_seconds() - 600) <= 2


async def test_signing_out_ends_that_token_and_no_other(app: Starlette, idp: IdentityProvider) -> None:
    one, other = await session(app, idp), await session(app, idp)
    program, _ = await make(one)
    assert (await one.ask("DELETE", "/sessions/current")).status_code == 204
    the_error(await one.ask("DELETE", "/sessions/current"), 401, "unauthorized")
    assert (await other.ask("GET", "/images")).status_code == 200
    assert (await program.ask("DELETE", "/sessions/current")).status_code == 204
    the_error(await program.ask("GET", "/images"), 401, "unauthorized")


async def test_the_shared_secret_cannot_be_signed_out(secret: Client) -> None:
    assert "cannot be signed out" in the_error(await secret.ask("DELETE", "/sessions/current"), 422, "not_a_session")
    me = (await secret.ask("GET", "/sessions/current")).json()["data"]
    assert me["attributes"] == {"name": "upload", "role": "uploader", "kind": "shared_secret", "scope": "full"}


async def test_tokens_of_other_users_are_not_found(app: Starlette, idp: IdentityProvider) -> None:
    jane, boss = await session(app, idp), await session(app, idp, BOSS)
    _, made = await make(jane)
    theirs = await boss.ask("DELETE", f"/tokens/{made['id']}")
    nobodys = await boss.ask("DELETE", f"/tokens/{made['id'] + 1000}")
    the_error(theirs, 404, "not_found")
    assert theirs.text.replace(str(made["id"]), "N") == nobodys.text.replace(str(made["id"] + 1000), "N")
    assert [each["id"] for each in (await boss.ask("GET", "/tokens")).json()["data"]] != []
    assert made["id"] not in [each["id"] for each in (await boss.ask("GET", "/tokens")).json()["data"]]
    assert (await jane.ask("DELETE", f"/tokens/{made['id']}")).status_code == 204


async def test_the_role_is_determined_for_each_request(
    context: Context, signed: Context, app: Starlette, idp: IdentityProvider
) -> None:
    jane, boss = await session(app, idp), await session(app, idp, BOSS)
    program, _ = await make(boss)
    assert [await role_of(each, app) for each in (jane, boss, program)] == ["user", "admin", "admin"]
    for changes, expected in (
        ({"admins": frozenset({JANE})}, ["admin", "user", "user"]),
        ({"trusted_user_email_domain": "@mail.example.com"}, [None, None, None]),
        ({"trusted_user_email_domain": "@ample.com"}, [None, None, None]),
        ({"trusted_user_email_domain": "@EXAMPLE.com"}, ["user", "admin", "admin"]),
    ):
        settings = signed.settings.model_copy(update=changes)
        changed = create_app(dataclasses.replace(signed, settings=settings), SECRET.encode())
        assert [await role_of(each, changed) for each in (jane, boss, program)] == expected
    # Without a provider, tokens of users are refused.
    without = create_app(context, SECRET.encode())
    assert [await role_of(each, without) for each in (jane, boss, program)] == [None, None, None]


async def test_a_deleted_account_cannot_sign_in(signed: Context, app: Starlette, idp: IdentityProvider) -> None:
    jane = await session(app, idp)
    program, _ = await make(jane)
    with psycopg.connect(signed.settings.dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM users")
    for each in (jane, program):
        the_error(await each.ask("GET", "/images"), 401, "unauthorized")


async def test_a_reassigned_address_inherits_no_tokens(signed: Context, app: Starlette, idp: IdentityProvider) -> None:
    former = await session(app, idp)
    with psycopg.connect(signed.settings.dsn, autocommit=True) as connection:
        connection.execute("UPDATE users SET subject = 'somebody else before'")
    await session(app, idp)
    the_error(await former.ask("GET", "/images"), 401, "unauthorized")


async def test_the_shared_secret_is_an_admin_only_until_people_sign_in(
    context: Context, app: Starlette, secret: Client
) -> None:
    alone = create_app(context, SECRET.encode())
    program, _ = await make(secret)
    for each in (secret, program):
        assert await role_of(each, app) == "uploader"
        assert await role_of(each, alone) == "admin"
    the_error(await secret.ask("GET", "/instances?all=true"), 403, "forbidden")


@pytest.mark.parametrize(
    "token",
    ["dru_", "dru_" + "A" * 43, "dru_" + "A" * 42, "DRU_" + "A" * 43, "A" * 47, SECRET[:-1], SECRET + "x", "ü", "\x00"],
)
async def test_an_unknown_token_has_no_identity(app: Starlette, token: str) -> None:
    answer = await Client(app).ask("GET", "/images")
    the_error(answer, 401, "unauthorized")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        headers = {b"Authorization": b"Bearer " + token.encode("latin-1")}
        the_error(await http.get("/images", headers=headers), 401, "unauthorized")
