"""Laws of signing in: a sign-in gives one client one session, and an attacker on the way gets nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import psycopg
import pytest
from starlette.applications import Starlette

from draupnir.api.limits import SIGN_INS_AT_ONCE, Limits
from draupnir.app import create_app
from draupnir.identity import oidc
from draupnir.operations.context import Context
from draupnir.store import sign_ins
from tests.identity_provider import CANARY, CLIENT_SECRET, FORGERIES, IdentityProvider
from tests.sign_in import (
    BOSS,
    HERE,
    ISSUER,
    JANE,
    PORT,
    SECRET,
    Browser,
    Client,
    code_of,
    session,
)

pytestmark = pytest.mark.anyio

MARK = "<script>mark</script>"


@pytest.fixture
def client(app: Starlette) -> Client:
    return Client(app)


@pytest.fixture
def browser(app: Starlette, idp: IdentityProvider) -> Browser:
    return Browser(app, idp)


def rows(context: Context, table: str) -> list[Any]:
    with psycopg.connect(context.settings.dsn) as connection:
        return connection.execute(f"SELECT to_jsonb({table})::text FROM {table}".encode()).fetchall()


def assert_nobody_came_in(context: Context) -> None:
    assert (rows(context, "users"), rows(context, "tokens"), rows(context, "sign_ins")) == ([], [], [])


def assert_page(answer: httpx.Response, status: int, words: str) -> None:
    """Check that it is one of our pages: fixed text, without scripts."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), answer.text
    assert words in answer.text
    assert "<script" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "no-referrer")


def the_error(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    (error,) = answer.json()["errors"]
    assert error["code"] == code
    return str(error["detail"])


@pytest.mark.parametrize("port", [PORT, None])
async def test_a_confirmed_user_gets_a_session(client: Client, browser: Browser, port: int | None) -> None:
    url = await client.begin(port)
    assert url.startswith(f"{HERE}/authenticate?sign_in=")
    code = code_of(await browser.sign_in(url))
    answer = await client.redeem(code)
    assert answer.status_code == 201, answer.text
    data = answer.json()["data"]
    assert data["type"] == "sessions"
    assert (data["attributes"]["email"], data["attributes"]["role"]) == (JANE, "user")
    client.token = data["attributes"]["token"]
    assert re.fullmatch(r"dru_[A-Za-z0-9_-]{43}", client.token)
    me = (await client.ask("GET", "/sessions/current")).json()["data"]
    assert me["id"] == data["id"]
    assert me["attributes"] == {
        "name": JANE,
        "role": "user",
        "kind": "session",
        "scope": "full",
        "expires_at": data["attributes"]["expires_at"],
    }


async def test_the_page_with_the_code_says_where_to_put_it(client: Client, browser: Browser) -> None:
    answer = await browser.sign_in(await client.begin(None))
    assert_page(answer, 200, "Paste this code into the terminal in which you have just started to sign in")


async def test_a_configured_admin_has_the_admin_role(app: Starlette, idp: IdentityProvider) -> None:
    boss = await session(app, idp, BOSS)
    assert (await boss.ask("GET", "/sessions/current")).json()["data"]["attributes"]["role"] == "admin"
    assert (await boss.ask("GET", "/instances?all=true")).status_code == 200


async def test_signing_in_again_changes_nothing_else(app: Starlette, idp: IdentityProvider) -> None:
    first, second = await session(app, idp), await session(app, idp)
    assert first.token != second.token
    for each in (first, second):
        assert (await each.ask("GET", "/images")).status_code == 200


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("port", [PORT, None])
async def test_a_forged_id_token_is_refused(
    signed: Context, idp: IdentityProvider, client: Client, browser: Browser, forgery: str, port: int | None
) -> None:
    idp.obey({"forge": forgery})
    answer = await browser.sign_in(await client.begin(port))
    if port is None:
        assert_page(answer, 401, "You were not signed in")
    else:
        assert answer.status_code == 302
        assert answer.headers["location"] == f"http://127.0.0.1:{PORT}/?error=sign_in_refused"
    assert_nobody_came_in(signed)


@pytest.mark.parametrize(
    ("orders", "error"),
    [
        ({"no_refresh_token": True}, "sign_in_refused"),
        ({"iss": "https://accounts.example.net"}, "sign_in_refused"),
        ({"fail": 400, "error": "invalid_grant"}, "sign_in_refused"),
        ({"fail": 500}, "provider_unavailable"),
        ({"fail": 503}, "provider_unavailable"),
    ],
    ids=str,
)
async def test_other_faults_of_the_provider_are_refused(
    signed: Context, idp: IdentityProvider, client: Client, browser: Browser, orders: dict[str, Any], error: str
) -> None:
    idp.obey(dict(orders))
    answer = await browser.sign_in(await client.begin())
    assert answer.headers.get("location") == f"http://127.0.0.1:{PORT}/?error={error}", answer.text
    page = await browser.sign_in(await client.begin(None))
    assert page.status_code == (401 if error == "sign_in_refused" else 503)
    assert_nobody_came_in(signed)


async def test_a_declined_consent_is_not_a_sign_in(signed: Context, client: Client, browser: Browser) -> None:
    back = await browser.at_provider(await browser.to_provider(await client.begin()), deny="1")
    answer = await browser.http.get(back)
    assert answer.headers["location"] == f"http://127.0.0.1:{PORT}/?error=sign_in_refused"
    assert_nobody_came_in(signed)


async def test_each_step_works_once(client: Client, browser: Browser) -> None:
    url = await client.begin()
    back = await browser.at_provider(await browser.to_provider(url))
    assert_page(await browser.http.get(url), 404, "This sign-in cannot continue")
    # The failed second use of the link does not affect the first browser.
    code = code_of(await browser.http.get(back))
    assert_page(await browser.http.get(back), 404, "This sign-in cannot continue")
    assert (await client.redeem(code)).status_code == 201
    the_error(await client.redeem(code), 401, "sign_in_refused")


async def test_a_code_is_used_up_by_the_wrong_client(app: Starlette, client: Client, browser: Browser) -> None:
    """A stolen code is useless."""
    code = code_of(await browser.sign_in(await client.begin()))
    thief = Client(app)
    the_error(await thief.redeem(code), 401, "sign_in_refused")
    the_error(await client.redeem(code), 401, "sign_in_refused")


async def test_an_expired_code_is_refused(signed: Context, client: Client, browser: Browser) -> None:
    code = code_of(await browser.sign_in(await client.begin()))
    with psycopg.connect(signed.settings.dsn, autocommit=True) as connection:
        (left,) = connection.execute("SELECT expires_at - now() <= interval '60 s' FROM sign_ins").fetchone() or ()
        connection.execute("UPDATE sign_ins SET expires_at = now()")
    assert left
    the_error(await client.redeem(code), 401, "sign_in_refused")


async def test_another_browser_cannot_finish_a_sign_in(
    app: Starlette, idp: IdentityProvider, client: Client, browser: Browser
) -> None:
    """An attacker starts a sign-in and a victim continues it, or the reverse."""
    target = await browser.to_provider(await client.begin())
    other = Browser(app, idp)
    back = await other.at_provider(target)
    assert_page(await other.http.get(back), 404, "another browser")
    other.http.cookies.set("draupnir_sign_in", "chosen by the attacker", domain="127.0.0.1")
    assert_page(await other.http.get(back), 404, "another browser")
    # The right browser can still use it.
    assert (await client.redeem(code_of(await browser.http.get(back)))).status_code == 201


async def test_a_phished_link_gives_the_attacker_no_session(
    app: Starlette, idp: IdentityProvider, client: Client
) -> None:
    """The attacker's client starts, the victim signs in: the code goes only to the victim's machine.

    The attacker knows the link and the verifier, from which state and code cannot be derived.
    """
    url = await client.begin()
    victim = Browser(app, idp)
    answer = await victim.sign_in(url)
    assert urlsplit(answer.headers["location"]).hostname == "127.0.0.1"
    link = dict(parse_qsl(urlsplit(url).query))["sign_in"]
    for guess in (link, client.verifier, "", "null", "%"):
        the_error(await client.redeem(guess), 401, "sign_in_refused")
    attacker = Browser(app, idp)
    for state in (link, client.verifier, ""):
        query = urlencode({"state": state, "code": "c", "iss": ISSUER})
        assert_page(await attacker.http.get(f"{HERE}/oauth_callback?{query}"), 404, "This sign-in cannot continue")


async def test_states_nonces_and_verifiers_are_random_and_unique(client: Client, browser: Browser) -> None:
    seen: set[str] = set()
    for _ in range(20):
        asked = dict(parse_qsl(urlsplit(await browser.to_provider(await client.begin())).query))
        seen |= {asked["state"], asked["nonce"], asked["code_challenge"]}
        # 128 bits and more, in base64url.
        assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 22
    assert len(seen) == 60


@pytest.mark.parametrize(
    "port", ["43210", "80@evil.example", ".evil.example", 80, 1023, 65536, -1, 1.5, True, [43210], {"a": 1}], ids=repr
)
async def test_a_code_is_sent_only_to_a_loopback_port(client: Client, port: object) -> None:
    wish = {"code_challenge": "A" * 43, "loopback_port": port}
    assert "port from 1024" in the_error(await client.ask("POST", "/sign_ins", wish), 400, "invalid_request")


@pytest.mark.parametrize("name", ["redirect_uri", "redirect_url", "next", "return_to", "url", "loopback_host"])
async def test_a_request_cannot_choose_the_redirect(client: Client, browser: Browser, name: str) -> None:
    evil = {name: "https://evil.example/"}
    wish = {"code_challenge": "A" * 43, **evil}
    assert (await client.ask("POST", "/sign_ins", wish)).status_code == 400
    target = await browser.to_provider(f"{await client.begin()}&{urlencode(evil)}")
    assert target.startswith(f"{ISSUER}/authorize?")
    assert "evil" not in target
    answer = await browser.http.get(f"{await browser.at_provider(target)}&{urlencode(evil)}")
    assert code_of(answer)
    assert "evil" not in answer.headers["location"]


async def test_a_page_quotes_nothing_of_the_request(client: Client, browser: Browser) -> None:
    query = urlencode(dict.fromkeys(("sign_in", "state", "code", "error", "error_description", "iss", "hd"), MARK))
    for path in ("/authenticate", "/oauth_callback"):
        answer = await browser.http.get(f"{HERE}{path}?{query}", headers={"Cookie": f"draupnir_sign_in={MARK}"})
        assert_page(answer, 404, "This sign-in cannot continue")
        assert "mark" not in answer.text + str(answer.headers)
    back = await browser.at_provider(await browser.to_provider(await client.begin(None)), deny="1")
    answer = await browser.http.get(f"{back}&{query}".replace("state=%3C", "ignored=%3C"))
    assert_page(answer, 401, "You were not signed in")
    assert "mark" not in answer.text + str(answer.headers)


async def test_the_cookie_is_for_this_host_and_for_no_script(
    signed: Context, idp: IdentityProvider, client: Client, browser: Browser
) -> None:
    answer = await browser.http.get(await client.begin())
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(r"draupnir_sign_in=[\w-]{43}; HttpOnly; Max-Age=600; Path=/; SameSite=lax", cookie)
    assert signed.settings.oidc is not None
    public = signed.settings.oidc.model_copy(update={"redirect_url": "https://db.example.org:8443/oauth_callback"})
    settings = signed.settings.model_copy(update={"oidc": public})
    over_tls = Client(create_app(dataclasses.replace(signed, settings=settings), SECRET.encode()))
    url = await over_tls.begin()
    assert url.startswith("https://db.example.org:8443/authenticate?sign_in=")
    answer = await over_tls.ask("GET", url.removeprefix("https://db.example.org:8443"))
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(
        r"__Host-draupnir_sign_in=[\w-]{43}; HttpOnly; Max-Age=600; Path=/; SameSite=lax; Secure", cookie
    )


async def test_an_outage_of_the_provider_does_not_use_up_the_link(
    idp: IdentityProvider, client: Client, browser: Browser
) -> None:
    url = await client.begin()
    idp.obey({"discovery": {"issuer": "https://elsewhere.example"}})
    answer = await browser.http.get(url)
    assert_page(answer, 503, "Your identity provider does not answer")
    assert answer.headers["retry-after"]
    idp.obey({})
    assert (await client.redeem(code_of(await browser.sign_in(url)))).status_code == 201


async def test_concurrent_requests_wait_for_a_hanging_provider_once(
    app: Starlette, idp: IdentityProvider, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Concurrent requests do not wait one after the other."""
    monkeypatch.setattr(oidc, "TIMEOUT_S", 0.2)
    idp.obey({"hang": "discovery"})
    urls = [await client.begin() for _ in range(20)]
    answers = await asyncio.gather(*(Browser(app, idp).http.get(url) for url in urls))
    for answer in answers:
        assert_page(answer, 503, "Your identity provider does not answer")
    assert idp.asked == ["discovery"]


async def test_a_provider_that_hangs_during_the_exchange_is_refused(
    signed: Context, idp: IdentityProvider, client: Client, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "TIMEOUT_S", 0.2)
    idp.obey({"hang": "token"})
    answer = await browser.sign_in(await client.begin())
    assert answer.headers["location"] == f"http://127.0.0.1:{PORT}/?error=provider_unavailable"
    assert_nobody_came_in(signed)


async def test_keys_that_the_provider_changed_are_learned(
    idp: IdentityProvider, client: Client, browser: Browser
) -> None:
    code_of(await browser.sign_in(await client.begin()))
    idp.obey({"rotate": True})
    code_of(await browser.sign_in(await client.begin()))


async def test_a_flood_of_sign_ins_is_bounded_and_excludes_nobody(
    signed: Context, app: Starlette, idp: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "MAX_PENDING", 100)
    client, browser = Client(app, address="10.1.0.1"), Browser(app, idp, "10.1.0.1")
    at_the_provider = await browser.to_provider(await client.begin())
    strangers = [Client(app, address=f"10.0.{number}.1") for number in range(200)]
    wish = {"code_challenge": "A" * 43}
    answers = await asyncio.gather(*(each.ask("POST", "/sign_ins", wish) for each in strangers))
    assert [answer.status_code for answer in answers] == [201] * len(strangers)
    assert len(rows(signed, "sign_ins")) == 100
    assert code_of(await browser.http.get(await browser.at_provider(at_the_provider)))
    await session(app, idp)


async def test_fifty_people_sign_in_at_once(signed: Context, app: Starlette, idp: IdentityProvider) -> None:
    async def one(number: int) -> str:
        client, address = Client(app, address=f"10.0.{number}.1"), f"10.0.{number}.1"
        code = code_of(await Browser(app, idp, address).sign_in(await client.begin(), f"user{number}@example.com"))
        return str((await client.redeem(code)).json()["data"]["attributes"]["email"])

    assert await asyncio.gather(*map(one, range(50))) == [f"user{number}@example.com" for number in range(50)]
    assert rows(signed, "sign_ins") == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/sign_ins"), ("GET", "/authenticate"), ("GET", "/oauth_callback"), ("POST", "/sessions")],
)
async def test_too_many_attempts_are_refused(client: Client, app: Starlette, method: str, path: str) -> None:
    app.state.limits = Limits(lambda: 0.0)  # on a busy machine more tries would be admitted while the test runs
    for _ in range(SIGN_INS_AT_ONCE):
        answer = await client.ask(method, path, {} if method == "POST" else None)
        assert answer.status_code in {400, 404}, answer.text
    answer = await client.ask(method, path, {} if method == "POST" else None)
    assert int(answer.headers["retry-after"]) >= 1
    if method == "POST":
        the_error(answer, 429, "too_many_requests")
    else:
        assert_page(answer, 429, "Too many tries")
    elsewhere = Client(app, address="10.0.0.2")
    assert (await elsewhere.ask(method, path, {} if method == "POST" else None)).status_code in {400, 404}


async def test_a_mistyped_secret_is_not_quoted(client: Client) -> None:
    canary = "canary-code"
    for wish in ({"code": canary, "code_verifier": canary}, {"code": [canary], "code_verifier": "A" * 43}):
        answer = await client.ask("POST", "/sessions", wish)
        the_error(answer, 400, "invalid_request")
        assert "canary" not in answer.text


async def test_without_a_provider_users_learn_how_to_authenticate(context: Context, idp: IdentityProvider) -> None:
    app = create_app(context, SECRET.encode())
    client = Client(app)
    told = the_error(await client.ask("POST", "/sign_ins", {"code_challenge": "A" * 43}), 422, "sign_in_not_configured")
    assert "--token-file" in told
    assert "[oidc]" in told
    the_error(await client.redeem("code"), 422, "sign_in_not_configured")
    for path in ("/authenticate", "/oauth_callback"):
        assert_page(await Browser(app, idp).http.get(HERE + path), 422, "Sign-in is not configured")


async def test_the_audit_log_has_the_user_and_no_log_has_a_secret(
    signed: Context,
    app: Starlette,
    browser: Browser,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.WARNING, "httpx")
    caplog.set_level(logging.INFO)
    # With a journal, the daemon logs the line elsewhere.
    monkeypatch.setattr(logging.getLogger("draupnir.audit"), "propagate", True)
    client = Client(app)
    url = await client.begin()
    back = await browser.at_provider(await browser.to_provider(url))
    answer = await browser.http.get(back)
    code = code_of(answer)
    created = await client.redeem(code)
    client.token = created.json()["data"]["attributes"]["token"]
    named = await client.ask("POST", "/tokens", {"name": "ci"})
    assert (await client.ask("DELETE", f"/tokens/{named.json()['data']['id']}")).status_code == 204
    assert (await client.ask("DELETE", "/sessions/current")).status_code == 204
    the_error(await client.ask("GET", "/images"), 401, "unauthorized")
    audit = [record.getMessage() for record in caplog.records if record.name == "draupnir.audit"]
    for who, what in (
        ("-", "method=POST path=/sign_ins"),
        ("-", "method=GET path=/authenticate"),
        (JANE, "method=GET path=/oauth_callback"),
        (JANE, "method=POST path=/sessions"),
        (JANE, "method=POST path=/tokens made=/tokens/"),
        (JANE, "method=DELETE path=/tokens/"),
        (JANE, "method=DELETE path=/sessions/current"),
    ):
        assert [line for line in audit if f"caller={who} source=10.0.0.1 {what}" in line], (what, audit)
    asked = dict(parse_qsl(urlsplit(back).query))
    link = dict(parse_qsl(urlsplit(url).query))["sign_in"]
    cookie = browser.http.cookies.get("draupnir_sign_in") or "-none-"
    secrets = [CANARY, CLIENT_SECRET, client.token, code, client.verifier, link, asked["state"], asked["code"], cookie]
    secrets.append(named.json()["data"]["attributes"]["token"])
    kept = repr([rows(signed, table) for table in ("users", "tokens", "sign_ins")])
    for secret in secrets:
        assert secret not in caplog.text
        assert secret not in kept
