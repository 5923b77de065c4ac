"""A revoked user loses access at once and no data before the grace period ends; an outage revokes nobody."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_network
from typing import Any

import httpx
import psycopg
import pytest

from draupnir import audit
from draupnir.callers import Caller, Identity, Reach, Role, Scope, Standing, TokenKind, User
from draupnir.errors import NotFound, OwnerUnknown, Unauthorized, WrongState
from draupnir.identity.encryption import Cipher
from draupnir.identity.oidc import Provider
from draupnir.models import Condition, Image, Instance, InstanceStatus
from draupnir.operations import instances, observations, offboarding, people, reconcile, retention
from draupnir.operations.context import Context, SignIn
from draupnir.settings import OidcSettings
from draupnir_helper import wire
from tests.daemon import CALLER, another_daemon, assert_lawful, converge, end, fake, ready_image, settle, until
from tests.fakes import FakeHelper, Killed
from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider

pytestmark = pytest.mark.anyio

ISSUER = "http://127.0.0.1:9000"
JANE, BOB = "jane@example.com", "bob@example.com"
GRACE = timedelta(hours=24)


@pytest.fixture
def idp() -> IdentityProvider:
    return IdentityProvider(ISSUER, "http://127.0.0.1:8432/oauth_callback")


@pytest.fixture
def signed(context: Context, idp: IdentityProvider) -> Context:
    """Provide a daemon with the identity provider."""
    oidc = OidcSettings(
        discovery_url=f"{ISSUER}/.well-known/openid-configuration",
        client_id=CLIENT_ID,
        redirect_url=idp.redirect_uri,
    )
    settings = context.settings.model_copy(update={"oidc": oidc, "trusted_user_email_domain": "@example.com"})
    provider = Provider(settings, CLIENT_SECRET, httpx.ASGITransport(idp.app()))
    return dataclasses.replace(context, settings=settings, sign_in=SignIn(provider, Cipher(bytes(32))))


async def sign_in(context: Context, idp: IdentityProvider, email: str, subject: str = "") -> Caller:
    """Create the result of a sign-in: the user, and a session."""
    assert context.sign_in is not None
    encrypted = context.sign_in.cipher.encrypt(idp.grant(email), email)
    await context.store.users.save(Identity(email, ISSUER, subject or f"subject of {email}"), encrypted)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await context.store.tokens.insert(email, TokenKind.SESSION, "", Scope.FULL, digest(email), tomorrow)
    return Caller(email, Role.USER)


def digest(email: str) -> bytes:
    return hashlib.sha256(email.encode()).digest()


async def instance_of(context: Context, caller: Caller, image: Image) -> Instance:
    return (await instances.create(context, caller, image.id))[0]


async def ask_about_everybody(context: Context) -> None:
    rounds = offboarding.Rounds(timedelta(0))
    await offboarding.ask_about_all(context, rounds)
    await settle(context)


async def status_of(context: Context, instance: Instance) -> InstanceStatus | None:
    found = await context.store.instances.get(instance.id)
    return None if found is None else found.status


@pytest.fixture
def audited(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    monkeypatch.setattr(logging.getLogger(audit.LOGGER), "propagate", True)
    caplog.set_level(logging.INFO, audit.LOGGER)
    return lambda: [record.getMessage() for record in caplog.records if record.name == audit.LOGGER]


async def test_a_revoked_user_loses_all_access_at_once_and_no_data(
    signed: Context, idp: IdentityProvider, helper: FakeHelper, audited: Callable[[], list[str]]
) -> None:
    image = await ready_image(signed)
    jane, bob = await sign_in(signed, idp, JANE), await sign_in(signed, idp, BOB)
    hers = [await instance_of(signed, jane, image) for _ in range(3)]
    his = await instance_of(signed, bob, image)
    idp.obey({"revoke": JANE})
    await ask_about_everybody(signed)
    assert helper.disk.listening == {his.id: his.port}
    assert helper.disk.instances.keys() == {his.id, *(each.id for each in hers)}
    assert await signed.store.tokens.use(digest(JANE)) is None
    assert await signed.store.tokens.use(digest(BOB)) is not None
    assert await instances.list_own(signed, jane) == []
    with pytest.raises(NotFound):
        await instances.get(signed, jane, hers[0].id)
    everybodys = await instances.list_everybodys(signed, CALLER)
    observed = await observations.observe(signed, everybodys)
    assert [observed[each.id].condition for each in everybodys] == [Condition.CLOSED] * 3 + [Condition.RUNNING]
    assert retention.destroy_at(signed, his) is None
    for each in everybodys[:3]:
        kept = retention.destroy_at(signed, each)
        assert kept is not None
        assert timedelta(hours=23) < kept - datetime.now(UTC) <= GRACE
    told = audited()
    assert any(f"work=lock_out_{JANE}" in line and f"reason=owner_left:{JANE}" in line for line in told)
    for each in hers:
        (line,) = (line for line in told if f"work=close_instance_{each.id} " in line)
        assert f"reason=owner_left:{JANE} result=done" in line
    await assert_lawful(signed)


@pytest.mark.parametrize(
    "orders",
    [
        {"fail": 500},
        {"fail": 503, "error": "invalid_grant"},
        {"fail": 429, "error": "invalid_grant"},
        {"fail": 400, "error": "invalid_request"},
        {"fail": 401, "error": "invalid_client"},
        {"fail": 400, "error": {"invalid_grant": 1}},
        {"discovery": {"issuer": "https://elsewhere.example"}},
        {"discovery": {"token_endpoint": None}},
    ],
    ids=str,
)
async def test_days_of_outage_revoke_nobody(
    signed: Context, idp: IdentityProvider, helper: FakeHelper, orders: dict[str, Any]
) -> None:
    jane = await sign_in(signed, idp, JANE)
    hers = await instance_of(signed, jane, await ready_image(signed))
    idp.obey(orders)
    for _ in range(20):
        await ask_about_everybody(signed)
    await converge(signed)
    assert helper.disk.listening == {hers.id: hers.port}
    assert await signed.store.tokens.use(digest(JANE)) is not None
    idp.obey({"revoke": JANE})
    await ask_about_everybody(signed)
    # After a possible rotation, a revocation takes as long as the grace period.
    await signed.store.users.count_refused(GRACE.total_seconds())
    await ask_about_everybody(signed)
    assert helper.disk.listening == {}


def answering(context: Context, *standings: Standing) -> None:
    """Make the provider give this answer, without checking or rotating refresh tokens."""
    said = iter(standings)

    async def check(refresh_token: str) -> tuple[Standing, str]:
        return next(said), refresh_token

    assert context.sign_in is not None
    context.sign_in.provider.check_refresh_token = check  # type: ignore[method-assign]


async def test_a_lost_renewal_ends_the_sessions_and_closes_nothing(
    signed: Context, idp: IdentityProvider, helper: FakeHelper, audited: Callable[[], list[str]]
) -> None:
    """The provider answers too late, with a new refresh token; then it refuses the old one, the only one we have."""
    jane = await sign_in(signed, idp, JANE)
    hers = await instance_of(signed, jane, await ready_image(signed))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await signed.store.tokens.insert(JANE, TokenKind.NAMED, "ci", Scope.FULL, digest("ci"), tomorrow)
    await ask_about_everybody(signed)
    answering(signed, Standing.UNCLEAR, *[Standing.REVOKED] * 5)
    for _ in range(5):
        await ask_about_everybody(signed)
        await signed.store.users.count_refused(3600)
    assert helper.disk.listening == {hers.id: hers.port}
    assert await signed.store.tokens.use(digest(JANE)) is None, "she has to sign in again"
    assert await signed.store.tokens.use(digest("ci")) is not None
    assert sum(f"end_sessions_of_{JANE}" in line for line in audited()) == 1
    # She does not sign in.
    await signed.store.users.count_refused(GRACE.total_seconds() - 4 * 3600)
    await ask_about_everybody(signed)
    assert helper.disk.listening == {}
    assert await signed.store.tokens.use(digest("ci")) is None


async def test_signing_in_after_a_lost_renewal_restores_access(
    signed: Context, idp: IdentityProvider, helper: FakeHelper
) -> None:
    jane = await sign_in(signed, idp, JANE)
    hers = await instance_of(signed, jane, await ready_image(signed))
    await ask_about_everybody(signed)
    answering(signed, Standing.UNCLEAR, Standing.REVOKED, Standing.VALID, Standing.REVOKED)
    await ask_about_everybody(signed)
    await ask_about_everybody(signed)
    await sign_in(signed, idp, JANE)
    await signed.store.users.count_refused(2 * GRACE.total_seconds())
    await ask_about_everybody(signed)
    assert helper.disk.listening == {hers.id: hers.port}
    # A later revocation is definite again.
    await ask_about_everybody(signed)
    assert helper.disk.listening == {}


@pytest.mark.parametrize("outage", [Standing.UNKNOWN, Standing.UNCLEAR])
async def test_a_refusal_by_a_provider_without_rotation_revokes_at_once(
    signed: Context, idp: IdentityProvider, helper: FakeHelper, outage: Standing
) -> None:
    await instance_of(signed, await sign_in(signed, idp, JANE), await ready_image(signed))
    answering(signed, Standing.VALID, outage, outage, Standing.REVOKED)
    for _ in range(3):
        await ask_about_everybody(signed)
    assert helper.disk.listening != {}
    await ask_about_everybody(signed)
    assert helper.disk.listening == {}


async def test_an_unsent_request_does_not_make_a_token_doubtful(
    signed: Context, idp: IdentityProvider, helper: FakeHelper
) -> None:
    await instance_of(signed, await sign_in(signed, idp, JANE), await ready_image(signed))
    await ask_about_everybody(signed)
    answering(signed, Standing.UNKNOWN, Standing.UNKNOWN, Standing.REVOKED)
    for _ in range(3):
        await ask_about_everybody(signed)
    assert helper.disk.listening == {}


async def test_a_daemon_killed_during_a_check_revokes_nobody(
    signed: Context, idp: IdentityProvider, helper: FakeHelper
) -> None:
    jane = await sign_in(signed, idp, JANE)
    hers = await instance_of(signed, jane, await ready_image(signed))

    async def killed(refresh_token: str) -> tuple[Standing, str]:
        raise Killed

    assert signed.sign_in is not None
    signed.sign_in.provider.check_refresh_token = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await ask_about_everybody(signed)
    answering(signed, Standing.REVOKED)
    await ask_about_everybody(signed)
    assert helper.disk.listening == {hers.id: hers.port}


async def test_a_user_without_instances_and_tokens_is_not_checked(signed: Context, idp: IdentityProvider) -> None:
    await sign_in(signed, idp, JANE)
    await signed.store.tokens.delete_all_of(JANE)
    await instances.create(signed, CALLER, (await ready_image(signed)).id)
    await ask_about_everybody(signed)
    assert idp.asked == []


async def test_a_refresh_token_is_not_sent_to_another_provider(signed: Context, idp: IdentityProvider) -> None:
    """After a change of the provider, its answers about tokens of the old one do not count."""
    await sign_in(signed, idp, JANE)
    assert signed.settings.oidc is not None
    elsewhere = signed.settings.oidc.model_copy(
        update={"discovery_url": "http://127.0.0.1:9001/.well-known/openid-configuration"}
    )
    moved = dataclasses.replace(signed, settings=signed.settings.model_copy(update={"oidc": elsewhere}))
    (user,) = await signed.store.users.list_all()
    assert await people.check(moved, user) is Standing.UNKNOWN
    assert idp.asked == []


async def closed_instance(context: Context, idp: IdentityProvider, email: str = JANE) -> Instance:
    """Provide an instance whose owner was revoked."""
    made = await instance_of(context, await sign_in(context, idp, email), await ready_image(context))
    idp.obey({"revoke": email})
    await ask_about_everybody(context)
    found = await context.store.instances.get(made.id)
    assert found is not None
    assert found.status is InstanceStatus.CLOSED
    return found


async def test_a_closed_instance_stays_closed(signed: Context, idp: IdentityProvider, helper: FakeHelper) -> None:
    closed = await closed_instance(signed, idp)
    await converge(signed)
    helper.reboot()
    await converge(signed)
    assert helper.disk.listening == {}
    # Started by hand.
    helper.disk.listening[closed.id] = closed.port
    await reconcile.reconcile_once(signed)
    assert helper.disk.listening == {}
    after = another_daemon(signed, helper.disk)
    await converge(after)
    assert helper.disk.listening == {}
    assert await status_of(signed, closed) is InstanceStatus.CLOSED


async def test_a_failed_close_is_repeated_until_it_succeeds(
    signed: Context, idp: IdentityProvider, helper: FakeHelper
) -> None:
    jane = await sign_in(signed, idp, JANE)
    await instance_of(signed, jane, await ready_image(signed))
    idp.obey({"revoke": JANE})
    helper.away = True
    await ask_about_everybody(signed)
    assert await signed.store.tokens.use(digest(JANE)) is None
    assert helper.disk.listening != {}
    helper.away = False
    await converge(signed)
    assert helper.disk.listening == {}


async def test_an_instance_that_does_not_stop_delays_no_other(
    signed: Context, idp: IdentityProvider, helper: FakeHelper
) -> None:
    image = await ready_image(signed)
    await instance_of(signed, await sign_in(signed, idp, JANE), image)
    his = await instance_of(signed, await sign_in(signed, idp, BOB), image)
    arrived, go_on = helper.hold(wire.CloseInstance)
    idp.obey({"revoke": JANE})
    async with asyncio.timeout(5):
        await offboarding.ask_about_all(signed, offboarding.Rounds(timedelta(0)))
        await arrived.wait()
    idp.obey({"revoke": BOB})
    async with asyncio.timeout(5):
        await offboarding.ask_about_all(signed, offboarding.Rounds(timedelta(0)))
    assert await status_of(signed, his) is InstanceStatus.CLOSED
    go_on.set()
    await settle(signed)
    assert helper.disk.listening == {}


async def test_retention_counts_only_the_run_time_of_the_service(
    signed: Context, idp: IdentityProvider, helper: FakeHelper, dsn: str, audited: Callable[[], list[str]]
) -> None:
    closed = await closed_instance(signed, idp)
    # The same as a clock that is years ahead.
    with psycopg.connect(dsn, autocommit=True) as connection:
        past = "now() - interval '10 years'"
        connection.execute(f"UPDATE instances SET created_at = {past}, updated_at = {past}".encode())
        connection.execute(f"UPDATE users SET signed_in_at = {past}, checked_at = {past}, left_at = {past}".encode())
    await signed.store.retention.count_closed(GRACE.total_seconds() - 60)
    await converge(signed)
    assert await status_of(signed, closed) is InstanceStatus.CLOSED
    await signed.store.retention.count_closed(61)
    await converge(signed)
    assert await status_of(signed, closed) is None
    assert helper.disk.instances == {}
    assert any(f"destroy_instance_{closed.id} reason=grace_over:{JANE}" in line for line in audited())
    await assert_lawful(signed)


async def test_an_admin_restores_an_instance_and_old_certificates_are_refused(
    signed: Context, idp: IdentityProvider, helper: FakeHelper
) -> None:
    closed = await closed_instance(signed, idp)
    # It was started by hand, with its old files.
    helper.disk.listening[closed.id] = closed.port
    restored = await retention.restore(signed, CALLER, closed.id)
    assert (restored.status, restored.owner, restored.port) == (InstanceStatus.RUNNING, JANE, closed.port)
    assert helper.disk.listening == {closed.id: closed.port}
    assert restored.authority != closed.authority
    assert helper.disk.started[closed.id].authority_certificate == restored.authority.certificate
    assert await retention.restore(signed, CALLER, closed.id) == restored, "asked twice it is done once"
    await signed.store.retention.count_closed(10 * GRACE.total_seconds())
    await ask_about_everybody(signed)
    await converge(signed)
    assert await status_of(signed, closed) is InstanceStatus.RUNNING
    await assert_lawful(signed)


async def test_an_admin_can_restore_an_instance_for_another_owner(
    signed: Context, idp: IdentityProvider, helper: FakeHelper, audited: Callable[[], list[str]]
) -> None:
    closed = await closed_instance(signed, idp)
    for nobody in ("stranger@example.com", JANE):
        with pytest.raises(OwnerUnknown):
            await retention.restore(signed, CALLER, closed.id, nobody)
    assert await status_of(signed, closed) is InstanceStatus.CLOSED
    assert helper.disk.listening == {}
    bob = await sign_in(signed, idp, BOB)
    await retention.restore(signed, CALLER, closed.id, BOB)
    (his,) = await instances.list_own(signed, bob)
    assert his.id == closed.id
    _, credentials = await instances.get(signed, bob, his.id)
    assert credentials is not None
    assert credentials.ca_certificate == helper.disk.started[his.id].authority_certificate
    (told,) = (request for request in helper.asked if isinstance(request, wire.AssignInstance))
    assert told.owner == BOB
    assert any(f"hand_instance_{closed.id}_to_{BOB}" in line for line in audited())
    with pytest.raises(WrongState):
        await retention.restore(signed, CALLER, closed.id, JANE)
    # Jane has signed in again, and owns nothing.
    assert await instances.list_own(signed, await sign_in(signed, idp, JANE)) == []
    await converge(signed)
    assert await instances.list_own(signed, bob) == [his]


async def test_a_new_owner_does_not_inherit_the_allowlist(signed: Context, idp: IdentityProvider) -> None:
    listing = dataclasses.replace(signed, settings=signed.settings.model_copy(update={"enable_ip_whitelisting": True}))
    closed = await closed_instance(listing, idp)
    await listing.store.addresses.add(closed.id, ip_network("192.0.2.7"), 3600)
    await sign_in(listing, idp, BOB)
    await retention.restore(listing, CALLER, closed.id, BOB)
    assert await listing.store.addresses.list_of(closed.id) == []
    started = fake(listing).disk.started[closed.id]
    assert started.addresses == []


async def test_signing_in_again_restores_everything(
    signed: Context, idp: IdentityProvider, helper: FakeHelper, audited: Callable[[], list[str]]
) -> None:
    """A provider withdraws tokens for other reasons than offboarding, such as a new password."""
    closed = await closed_instance(signed, idp)
    await signed.store.retention.count_closed(2 * GRACE.total_seconds())
    jane = await sign_in(signed, idp, JANE)
    await converge(signed)
    (back,) = await instances.list_own(signed, jane)
    assert (back.id, back.status) == (closed.id, InstanceStatus.RUNNING)
    assert back.authority != closed.authority
    assert helper.disk.listening == {back.id: back.port}
    assert any(f"reason=owner_is_back:{JANE} result=done" in line for line in audited())
    await assert_lawful(signed)


async def are_under_way(context: Context, tasks: int) -> bool:
    return len(context.tasks._running) == tasks


async def test_a_restore_opens_an_instance_whose_owner_was_revoked_again(
    signed: Context, idp: IdentityProvider, helper: FakeHelper
) -> None:
    """The daemon reopens it only for its owner; a concurrent restore by an admin succeeds, too."""
    closed = await closed_instance(signed, idp)
    await sign_in(signed, idp, JANE)
    arrived, go_on = helper.hold(wire.CloseInstance)
    by_itself = asyncio.create_task(retention.take_back(signed, closed))
    await arrived.wait()
    by_an_admin = asyncio.create_task(retention.restore(signed, CALLER, closed.id))
    await until(lambda: are_under_way(signed, 2))
    idp.obey({"revoke": JANE})
    await offboarding.ask_about_all(signed, offboarding.Rounds(timedelta(0)))
    go_on.set()
    assert (await by_an_admin).status is InstanceStatus.RUNNING
    await by_itself
    await converge(signed)
    assert await status_of(signed, closed) is InstanceStatus.RUNNING
    await assert_lawful(signed)


async def test_a_restore_keeps_an_instance_that_was_opened_since(
    signed: Context, idp: IdentityProvider, helper: FakeHelper
) -> None:
    """Connections and allowlist of an open instance stay unchanged."""
    closed = await closed_instance(signed, idp)
    await sign_in(signed, idp, JANE)
    await sign_in(signed, idp, BOB)
    await signed.store.addresses.add(closed.id, ip_network("192.0.2.7"), 3600)
    arrived, go_on = helper.hold(wire.CloseInstance)
    by_itself = asyncio.create_task(retention.take_back(signed, closed))
    await arrived.wait()
    by_an_admin = asyncio.create_task(retention.restore(signed, CALLER, closed.id))
    for_bob = asyncio.create_task(retention.restore(signed, CALLER, closed.id, BOB))
    await until(lambda: are_under_way(signed, 3))
    go_on.set()
    opened = await by_an_admin
    assert (opened.status, opened.owner) == (InstanceStatus.RUNNING, JANE)
    with pytest.raises(WrongState):
        await for_bob
    await by_itself
    assert [type(each) for each in helper.asked].count(wire.CloseInstance) == 2, "when it was closed, and when reopened"
    assert helper.disk.listening == {closed.id: closed.port}
    assert [each.network for each in await signed.store.addresses.list_of(closed.id)] == [ip_network("192.0.2.7")]


async def test_a_reassigned_address_restores_nothing(
    signed: Context, idp: IdentityProvider, helper: FakeHelper
) -> None:
    closed = await closed_instance(signed, idp)
    another_jane = await sign_in(signed, idp, JANE, "another Jane")
    await converge(signed)
    assert await instances.list_own(signed, another_jane) == []
    assert await status_of(signed, closed) is InstanceStatus.CLOSED
    assert helper.disk.listening == {}


async def test_an_address_reassigned_between_two_checks_inherits_no_instance(
    signed: Context, idp: IdentityProvider, helper: FakeHelper
) -> None:
    jane = await sign_in(signed, idp, JANE)
    hers = await instance_of(signed, jane, await ready_image(signed))
    await signed.store.tokens.delete_all_of(JANE)
    another_jane = await sign_in(signed, idp, JANE, "another Jane")
    assert await instances.list_own(signed, another_jane) == []
    await converge(signed)
    assert await status_of(signed, hers) is InstanceStatus.CLOSED
    assert helper.disk.listening == {}


async def test_an_instance_in_creation_is_not_left_open(
    signed: Context, idp: IdentityProvider, helper: FakeHelper
) -> None:
    image = await ready_image(signed)
    jane = await sign_in(signed, idp, JANE)
    arrived, go_on = helper.hold(wire.StartInstance)
    creating = asyncio.create_task(instances.create(signed, jane, image.id))
    await arrived.wait()
    idp.obey({"revoke": JANE})
    leaver = asyncio.create_task(ask_about_everybody(signed))

    async def gone() -> bool:
        return await signed.store.tokens.use(digest(JANE)) is None

    await until(gone)
    go_on.set()
    await leaver
    with pytest.raises(WrongState):
        await creating
    with pytest.raises(Unauthorized):
        await instances.create(signed, jane, image.id)
    await converge(signed)
    assert (helper.disk.listening, helper.disk.instances) == ({}, {})
    await assert_lawful(signed)


async def test_a_session_in_transit_is_refused(signed: Context, idp: IdentityProvider) -> None:
    """The code was issued before the revocation, and redeemed after it."""
    await closed_instance(signed, idp)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await signed.store.tokens.insert(JANE, TokenKind.SESSION, "", Scope.FULL, digest("late"), tomorrow)
    assert await signed.store.tokens.use(digest("late")) is None


async def test_a_stop_of_the_daemon_during_checks_loses_no_renewal(signed: Context, idp: IdentityProvider) -> None:
    """The provider accepts each refresh token once, so a lost successor would look like a revocation."""
    assert signed.sign_in is not None
    await sign_in(signed, idp, JANE)
    answered, save = asyncio.Event(), asyncio.Event()
    check = signed.sign_in.provider.check_refresh_token

    async def held(refresh_token: str) -> tuple[Standing, str]:
        answer = await check(refresh_token)
        answered.set()
        await save.wait()
        return answer

    signed.sign_in.provider.check_refresh_token = held  # type: ignore[method-assign]
    asking = asyncio.create_task(offboarding.ask_about_all(signed, offboarding.Rounds(timedelta(0))))
    await answered.wait()
    for _ in range(3):
        asking.cancel()
        await asyncio.sleep(0)
    save.set()
    await asyncio.wait([asking])
    assert asking.cancelled()
    (user,) = await signed.store.users.list_all()
    assert signed.sign_in.cipher.decrypt(user.refresh_token, JANE) in idp.refresh_tokens


async def test_a_revocation_is_found_within_an_interval(
    signed: Context, idp: IdentityProvider, helper: FakeHelper
) -> None:
    quick = signed.settings.model_copy(update={"clean_interval": timedelta(milliseconds=50)})
    context = dataclasses.replace(signed, settings=quick)
    jane = await sign_in(context, idp, JANE)
    hers = await instance_of(context, jane, await ready_image(context))
    running = asyncio.create_task(offboarding.run(context))

    async def asked_often() -> bool:
        return len(idp.asked) >= 5

    await until(asked_often)
    assert helper.disk.listening == {hers.id: hers.port}
    idp.obey({"revoke": JANE})

    async def closed() -> bool:
        return helper.disk.listening == {}

    await until(closed)

    async def counted() -> bool:
        found = await context.store.instances.get(hers.id)
        return found is not None and found.retained is not None and found.retained.closed_s > 0

    await until(counted)
    await end(running)


class Clock:
    """Replaces time.monotonic."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(offboarding, "time", made)
    return made


def people_checked(count: int, ago: timedelta) -> list[User]:
    checked_at = datetime.now(UTC) - ago
    return [
        User(f"{n}@example.com", ISSUER, str(n), b"", checked_at, checked_at, checked_at, None) for n in range(count)
    ]


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    "ago", [timedelta(0), timedelta(minutes=30), timedelta(days=3), timedelta(days=-4000)], ids=str
)
def test_each_user_is_checked_within_every_interval_and_not_all_at_once(clock: Clock, ago: timedelta) -> None:
    users, rounds = people_checked(1000, ago), offboarding.Rounds(HOUR)
    asked: dict[str, list[float]] = {user.email: [clock.now_s] for user in users}
    most = 0
    for _ in range(4 * 60):
        clock.now_s += 60
        due = rounds.due(users)
        most = max(most, len(due) if clock.now_s > 1000 + 2 * 3600 else 0)
        for user in due:
            asked[user.email].append(clock.now_s)
            rounds.note(user, Standing.VALID)
    for times in asked.values():
        assert max(after - before for before, after in itertools.pairwise(times)) <= 3600 + 60
        assert len(times) <= 1 + 4 / offboarding.EARLIEST + 1
    assert most < 500


def test_checks_back_off_during_an_outage_and_recover_after_it(clock: Clock) -> None:
    (jane,), rounds = people_checked(1, timedelta(days=3)), offboarding.Rounds(HOUR)
    outage, after = 0, 0
    for second in range(2 * 24 * 3600):
        clock.now_s += 1
        if rounds.due([jane]):
            away = second < 24 * 3600
            outage, after = outage + away, after + (not away)
            rounds.note(jane, Standing.UNKNOWN if away else Standing.VALID)
    assert 24 <= outage <= 24 / offboarding.EARLIEST + 12
    assert 24 <= after <= 24 / offboarding.EARLIEST + 2


Act = Callable[[Context], Awaitable[object]]


@pytest.mark.parametrize("carried_out", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("act", ["lock out", "restore", "hand over", "come back", "expire"])
async def test_an_offboarding_is_completed_after_a_crash(
    signed: Context, idp: IdentityProvider, act: str, carried_out: bool
) -> None:
    """The daemon crashes at each request to the helper; the next one completes exactly the recorded decision."""
    bob = await sign_in(signed, idp, BOB)
    kill_at = 0
    while True:
        helper = FakeHelper()
        alive = dataclasses.replace(signed, helper=helper, wake=helper.wake)
        if act == "lock out":
            before = await instance_of(alive, await sign_in(alive, idp, JANE), await ready_image(alive))
            idp.obey({"revoke": JANE})
        else:
            before = await closed_instance(alive, idp)
        await settle(alive)
        if act == "come back":
            await sign_in(alive, idp, JANE)
        if act == "expire":
            await signed.store.retention.count_closed(GRACE.total_seconds())
        doomed_helper = FakeHelper(helper.disk)
        doomed_helper.kill_at, doomed_helper.kill_after = kill_at, carried_out
        doomed = dataclasses.replace(another_daemon(signed, helper.disk), helper=doomed_helper, sign_in=signed.sign_in)
        acts: dict[str, Act] = {
            "lock out": ask_about_everybody,
            "restore": partial(retention.restore, caller=CALLER, instance_id=before.id),
            "hand over": partial(retention.restore, caller=CALLER, instance_id=before.id, owner=BOB),
        }
        await asyncio.gather(acts.get(act, reconcile.reconcile_once)(doomed), return_exceptions=True)
        if not doomed_helper.dead:
            await settle(doomed)
        await doomed.tasks.close()

        after = another_daemon(signed, helper.disk)
        await converge(after)
        await assert_lawful(after)
        found = await signed.store.instances.get(before.id)
        if act == "expire":
            assert found is None
        elif act == "lock out":
            assert found is not None
            assert found.status is InstanceStatus.CLOSED
        else:
            assert found is not None
            decided = act == "come back" or found.status is InstanceStatus.RUNNING
            assert (found.authority != before.authority) is decided
            assert found.owner == (BOB if decided and act == "hand over" else JANE)
            assert helper.disk.listening == ({found.id: found.port} if decided else {})
        admin = Caller("upload", Role.ADMIN, Reach.ALL)
        for each in await instances.list_everybodys(after, admin):
            await instances.destroy(after, admin, each.id)
        assert await instances.list_own(after, bob) == []
        await signed.store.tokens.delete_all_of(JANE)
        for image in await signed.store.images.list_all():
            await signed.store.images.begin_destroying(image.id, cascade=True)
        await converge(after)
        if not doomed_helper.dead:
            break
        kill_at += 1
    assert kill_at > 0
    assert fake(after).disk.instances == {}
