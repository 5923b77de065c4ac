"""Ports have the allowlist in the metadata: from the start, after each change, and after a deviation."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import psycopg
import pytest

from draupnir.addresses import Address, Cidr
from draupnir.callers import Caller, Reach, Role, Scope, Token, TokenKind
from draupnir.errors import AllowListsOff, FilterMissing, HelperUnavailable, NotFound, TooManyAddresses
from draupnir.models import Instance, Network, Shape
from draupnir.operations import addresses, instances, pool, reconcile
from draupnir.operations.context import Context
from draupnir.settings import Settings
from draupnir_helper import wire
from tests.daemon import CALLER, ready_image
from tests.fakes import FakeHelper

pytestmark = pytest.mark.anyio

HERE, THERE = ip_address("192.0.2.7"), ip_address("2001:db8::7")
DAY_S = 24 * 3600


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings with allowlists."""
    return settings.model_copy(update={"enable_ip_whitelisting": True})


def admits(helper: FakeHelper, instance_id: int) -> set[Cidr]:
    """Return the allowlist of a port without the server itself."""
    found = helper.disk.admitted[instance_id]
    assert found is not None
    assert {*wire.LOOPBACK} <= {*found}
    return {*found} - {*wire.LOOPBACK}


def networks(*texts: str | Address) -> set[Cidr]:
    return {ip_network(text) for text in texts}


async def create(context: Context, source: Address | None = HERE) -> Instance:
    image = await ready_image(context)
    instance, _ = await instances.create(context, CALLER, image.id, client_address=source)
    return instance


def expire(dsn: str, instance_id: int) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE addresses SET expires_at = now() WHERE instance_id = %s", [instance_id])


async def test_the_first_listen_admits_the_creator_alone(context: Context, helper: FakeHelper) -> None:
    instance = await create(context)
    assert helper.disk.started[instance.id].addresses == [ip_network(HERE)]
    assert admits(helper, instance.id) == networks(HERE)


async def test_a_trial_listens_on_loopback_and_needs_no_list(context: Context, helper: FakeHelper) -> None:
    await ready_image(context)
    (trial,) = helper.disk.started.values()
    assert trial.loopback_only
    assert trial.addresses is None


async def test_credentials_open_their_instance(context: Context, helper: FakeHelper) -> None:
    instance = await create(context)
    await instances.get(context, CALLER, instance.id, THERE)
    assert admits(helper, instance.id) == networks(HERE, THERE)


NOW = datetime.now(UTC)
LOOKING = Token(
    1, CALLER.name, TokenKind.NAMED, "ci", Scope.READ_ONLY, created_at=NOW, expires_at=NOW, last_used_at=None
)


@pytest.mark.parametrize(
    "caller", [Caller("root@corp.example", Role.ADMIN), Caller(CALLER.name, CALLER.role, token=LOOKING)]
)
async def test_admins_and_read_only_tokens_add_no_address(context: Context, helper: FakeHelper, caller: Caller) -> None:
    instance = await create(context)
    confined = caller if caller.read_only else Caller(caller.name, caller.role, reach=Reach.ALL)
    _, credentials = await instances.get(context, confined, instance.id, THERE)
    assert credentials is None
    assert admits(helper, instance.id) == networks(HERE)


async def test_a_request_from_a_known_address_renews_it_without_asking_the_helper(
    context: Context, helper: FakeHelper
) -> None:
    instance = await create(context)
    (before,) = await addresses.list_of(context, instance)
    asked = len(helper.asked)
    await instances.get(context, CALLER, instance.id, HERE)
    (after,) = await addresses.list_of(context, instance)
    assert after.expires_at > before.expires_at
    assert len(helper.asked) == asked


async def test_additions_and_removals_apply_at_once(context: Context, helper: FakeHelper) -> None:
    instance = await create(context)
    await addresses.add(context, instance, ip_network("198.51.100.0/24"), 600)
    assert admits(helper, instance.id) == networks(HERE, "198.51.100.0/24")
    await addresses.remove(context, instance, ip_network(HERE))
    assert admits(helper, instance.id) == networks("198.51.100.0/24")
    with pytest.raises(NotFound):
        await addresses.remove(context, instance, ip_network(HERE))


async def test_an_expired_address_is_blocked_by_the_next_pass(context: Context, helper: FakeHelper) -> None:
    instance = await create(context)
    expire(context.settings.dsn, instance.id)
    await addresses.reconcile_once(context)
    assert admits(helper, instance.id) == set()
    assert await addresses.list_of(context, instance) == []


async def test_the_allowlist_has_a_maximum_length(context: Context, helper: FakeHelper) -> None:
    instance = await create(context)
    added = [ip_network(f"198.51.100.{number}") for number in range(wire.MAX_ADDRESSES - 1)]
    for network in added:
        await context.store.addresses.add(instance.id, network, DAY_S)
    with pytest.raises(TooManyAddresses):
        await addresses.add(context, instance, ip_network("203.0.113.1"), None)
    await addresses.add(context, instance, added[0], 600)
    await instances.get(context, CALLER, instance.id, THERE)
    assert admits(helper, instance.id) == networks(THERE) | {*added}, "the one seen last takes the place of the first"


@pytest.mark.parametrize(
    "drift",
    [
        lambda admitted, some_id: admitted.update({some_id: None}),
        lambda admitted, some_id: admitted.update({some_id: [ip_network("203.0.113.0/24")]}),
        lambda admitted, some_id: admitted.update({some_id: [*wire.LOOPBACK]}),
    ],
    ids=["open to everybody", "open to others", "closed"],
)
async def test_a_port_that_was_changed_by_hand_is_corrected(
    context: Context, helper: FakeHelper, drift: Callable[[dict[int, object], int], None]
) -> None:
    instance = await create(context)
    drift(helper.disk.admitted, instance.id)  # type: ignore[arg-type]
    await addresses.reconcile_once(context)
    assert admits(helper, instance.id) == networks(HERE)


async def test_an_equivalent_filter_is_left_unchanged(context: Context, helper: FakeHelper) -> None:
    instance = await create(context)
    await addresses.add(context, instance, ip_network("192.0.2.0/24"), None)
    # systemd drops networks that others contain, and sorts them differently.
    helper.disk.admitted[instance.id] = [ip_network("192.0.2.0/24"), *wire.LOOPBACK[::-1]]
    asked = len(helper.asked)
    await addresses.reconcile_once(context)
    assert [type(each) for each in helper.asked[asked:]] == [wire.ObserveAddresses]


async def test_a_reboot_and_a_restart_change_no_list(context: Context, helper: FakeHelper) -> None:
    instance = await create(context)
    await addresses.add(context, instance, ip_network(THERE), None)
    helper.reboot()
    await reconcile.reconcile_once(context)
    assert admits(helper, instance.id) == networks(HERE, THERE)


async def test_a_pooled_port_accepts_no_address_and_a_claimed_one_its_owner(
    context: Context, helper: FakeHelper
) -> None:
    image = await ready_image(context)
    settings = context.settings.model_copy(update={"pool_size": 1})
    wide = dataclasses.replace(context, settings=settings)
    await pool.fill(wide)
    (pooled,) = await pool.pooled(wide)
    assert admits(helper, pooled.id) == set()
    instance, _ = await instances.create(wide, CALLER, image.id, client_address=HERE)
    assert instance.id == pooled.id
    assert admits(helper, instance.id) == networks(HERE)


async def test_concurrent_changes_end_with_the_allowlist_in_the_metadata(context: Context, helper: FakeHelper) -> None:
    instance = await create(context)
    arrived, go_on = helper.hold(wire.AdmitAddresses)
    some = [ip_network(f"198.51.100.{number}") for number in range(5)]
    changes = [asyncio.create_task(addresses.add(context, instance, each, None)) for each in some]
    await arrived.wait()
    go_on.set()
    await asyncio.gather(*changes)
    assert admits(helper, instance.id) == {ip_network(HERE), *some}


async def test_an_outage_of_the_helper_loses_no_change(context: Context, helper: FakeHelper) -> None:
    instance = await create(context)
    helper.away = True
    with pytest.raises(HelperUnavailable):
        await addresses.add(context, instance, ip_network(THERE), None)
    helper.away = False
    await addresses.reconcile_once(context)
    assert admits(helper, instance.id) == networks(HERE, THERE)


async def test_without_allowlists_every_port_is_open_and_the_helper_is_not_asked(
    context: Context, helper: FakeHelper
) -> None:
    instance = await create(context)
    off = context.settings.model_copy(update={"enable_ip_whitelisting": False})
    context = dataclasses.replace(context, settings=off)
    await addresses.reconcile_once(context)
    assert helper.disk.admitted[instance.id] is None
    asked = len(helper.asked)
    await instances.get(context, CALLER, instance.id, THERE)
    assert helper.asked[asked:] == []
    with pytest.raises(AllowListsOff):
        await addresses.add(context, instance, ip_network(THERE), None)


async def test_direct_instances_have_lists_as_well(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    shape = Shape(0, Network.DIRECT)
    instance, _ = await instances.create(context, CALLER, image.id, shape, HERE)
    assert admits(helper, instance.id) == networks(HERE)


async def test_the_service_does_not_start_if_the_machine_cannot_filter(helper: FakeHelper) -> None:
    await addresses.require_filter(helper)
    helper.filters_addresses = False
    with pytest.raises(FilterMissing):
        await addresses.require_filter(helper)
