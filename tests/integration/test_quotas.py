"""No user gets more instances than max_instances_per_user, by any way, even with concurrent requests."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

import psycopg
import pytest

from draupnir.callers import Caller, Identity, Role, Scope
from draupnir.errors import DraupnirError, TooManyInstances
from draupnir.models import InstanceStatus, Shape
from draupnir.operations import instances, lifecycle, pool, retention, tokens
from draupnir.operations.context import Context
from draupnir.settings import Settings
from tests.daemon import CALLER, ready_image, settle

pytestmark = pytest.mark.anyio

JANE, BOB = "jane@example.com", "bob@example.com"
UPLOAD = "upload"
LIMIT = 3


def limited(context: Context, **changes: object) -> Context:
    """Provide a daemon with a configured limit, and enough ports."""
    update = {"max_instances_per_user": LIMIT, "max_instance_port": 20200, **changes}
    return dataclasses.replace(context, settings=context.settings.model_copy(update=update))


async def person(context: Context, email: str, subject: str = "") -> Caller:
    await context.store.users.save(Identity(email, "https://sso.example.com", subject or email), b"encrypted")
    return Caller(email, Role.USER)


async def outcomes(context: Context, caller: Caller, image_id: int, times: int) -> Mapping[str, int]:
    """Run concurrent creations, and count the results by error code."""

    async def create() -> str:
        try:
            await instances.create(context, caller, image_id)
        except DraupnirError as error:
            return error.code
        return "created"

    return Counter(await asyncio.gather(*(create() for _ in range(times))))


@pytest.mark.parametrize("pooled", [0, 2, 10])
async def test_fifty_concurrent_requests_respect_the_limit(context: Context, pooled: int) -> None:
    context = limited(context)
    image = await ready_image(context)
    for _ in range(pooled):
        await lifecycle.bring_up(context, (await pool.reserve(context, image.id)).id)
    jane, bob = await person(context, JANE), await person(context, BOB)
    of_jane, of_bob = await asyncio.gather(
        outcomes(context, jane, image.id, 50), outcomes(context, bob, image.id, LIMIT)
    )
    assert of_jane == {"created": LIMIT, "too_many_instances": 50 - LIMIT}
    assert of_bob == {"created": LIMIT}
    assert len(await instances.list_own(context, jane)) == LIMIT


async def test_the_quota_error_lists_instances_and_destroying_one_frees_a_place(context: Context) -> None:
    context = limited(context)
    image = await ready_image(context)
    jane = await person(context, JANE)
    mine = [(await instances.create(context, jane, image.id))[0].id for _ in range(LIMIT)]
    for shape in (None, Shape(60)):
        with pytest.raises(TooManyInstances, match=f"{JANE} has 3 instances, .*: {', '.join(map(str, mine))}. Destroy"):
            await instances.create(context, jane, image.id, shape)
    await instances.destroy(context, jane, mine[0])
    await instances.create(context, jane, image.id)


async def test_a_stopped_instance_counts(context: Context, dsn: str) -> None:
    context = limited(context, max_instances_per_user=1)
    image = await ready_image(context)
    jane = await person(context, JANE)
    mine, _ = await instances.create(context, jane, image.id)
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "UPDATE instances SET status = 'stopped', stop_reason = 'it wrote most' WHERE id = %s", [mine.id]
        )
    with pytest.raises(TooManyInstances):
        await instances.create(context, jane, image.id)


async def test_the_shared_secret_is_limited_only_if_the_key_is_set(context: Context) -> None:
    image = await ready_image(context)
    ports = context.settings.model_copy(update={"max_instance_port": 20200})
    free = dataclasses.replace(context, settings=ports)
    assert await outcomes(free, CALLER, image.id, 25) == {"created": 25}
    assert (await outcomes(limited(context), CALLER, image.id, 1)) == {"too_many_instances": 1}


def test_users_have_twenty_instances_by_default() -> None:
    settings = Settings(public_hostname="db.example.org")
    assert settings.instance_limit(JANE) == 20
    assert settings.instance_limit(UPLOAD) is None
    settings = Settings(public_hostname="db.example.org", max_instances_per_user=20)
    assert settings.instance_limit(UPLOAD) == 20


async def leave(context: Context, email: str) -> None:
    user = await context.store.users.get(email)
    assert user is not None
    left_behind = await context.store.users.leave(user)
    assert left_behind is not None
    retention.begin_closing(context, left_behind)
    await settle(context)


async def test_an_instance_is_restored_only_for_an_owner_below_the_quota(context: Context) -> None:
    context = limited(context)
    image = await ready_image(context)
    jane, bob = await person(context, JANE), await person(context, BOB)
    left_behind = [(await instances.create(context, jane, image.id))[0] for _ in range(LIMIT)]
    for _ in range(LIMIT - 1):
        await instances.create(context, bob, image.id)
    await leave(context, JANE)
    handed = await asyncio.gather(
        *(retention.restore(context, CALLER, each.id, BOB) for each in left_behind), return_exceptions=True
    )
    refused = [each for each in handed if isinstance(each, BaseException)]
    assert [type(each) for each in refused] == [TooManyInstances] * (LIMIT - 1)
    assert len(await instances.list_own(context, bob)) == LIMIT
    still_closed = [each for each in await context.store.instances.list_all() if each.owner == JANE]
    assert {each.status for each in still_closed} == {InstanceStatus.CLOSED}
    assert len(still_closed) == LIMIT - 1


async def test_closed_instances_count_only_for_the_same_identity(context: Context) -> None:
    context = limited(context)
    image = await ready_image(context)
    jane = await person(context, JANE)
    await instances.create(context, jane, image.id)
    await instances.create(context, jane, image.id)
    await leave(context, JANE)
    # The old instance is not open again yet.
    await person(context, JANE)
    assert await outcomes(context, jane, image.id, 5) == {"created": 1, "too_many_instances": 4}
    await leave(context, JANE)
    await person(context, JANE, subject="somebody else")
    assert await outcomes(context, jane, image.id, 5) == {"created": LIMIT, "too_many_instances": 2}


async def test_nobody_has_more_than_a_hundred_named_tokens(context: Context) -> None:
    jane, bob = await person(context, JANE), await person(context, BOB)

    async def create(number: int) -> str:
        try:
            await tokens.create(context, jane, f"ci-{number}", Scope.FULL, timedelta(days=1))
        except DraupnirError as error:
            return error.code
        return "created"

    assert Counter(await asyncio.gather(*map(create, range(110)))) == {"created": 100, "too_many_tokens": 10}
    await tokens.create(context, bob, "ci", Scope.FULL, timedelta(days=1))
    await tokens.revoke(context, jane, (await tokens.list_own(context, jane))[0].id)
    assert await create(110) == "created"
    # Sessions do not count; they come from signing in, and expire.
    await tokens.start_session(context, JANE)
