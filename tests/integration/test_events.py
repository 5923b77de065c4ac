"""Each change of a status is legal, and is reported once, in order, to the users concerned."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import psycopg
import pytest

from draupnir import audit, lifecycles, store
from draupnir.callers import Caller, Role
from draupnir.errors import NoRoom
from draupnir.lifecycles import CHANGES, INSTANCES, Event, Kind, Undo
from draupnir.models import ImageStatus, InstanceStatus
from draupnir.operations import events, instances
from draupnir.operations.context import Context
from draupnir.store import events as events_table
from draupnir.store.database import Database
from draupnir.store.transitions import take_turn
from draupnir_helper import wire
from draupnir_helper.wire import ErrorCode
from tests.daemon import CALLER, new_instance, ready_image, settle
from tests.fakes import FakeHelper, Refused

pytestmark = pytest.mark.anyio

ANN, BOB = Caller("ann@corp.example", Role.USER), Caller("bob@corp.example", Role.USER)


async def of_instance(context: Context, instance_id: int) -> list[Event]:
    return await context.store.events.list_of(Kind.INSTANCE, instance_id, None, 100)


async def test_events_report_a_life_from_its_beginning_to_its_end(context: Context) -> None:
    image = await ready_image(context)
    audit.origin.set(audit.Origin(CALLER.name, "192.0.2.7", "request-7"))
    instance = await new_instance(context, image)
    await instances.destroy(context, CALLER, instance.id)
    told = await of_instance(context, instance.id)
    assert [(each.name, each.before, each.after) for each in told] == [
        ("created", None, "creating"),
        ("started", "creating", "running"),
        ("destroying", "running", "destroying"),
        ("destroyed", "destroying", None),
    ]
    assert {(each.owner, each.caller, each.request_id) for each in told} == {(CALLER.name, CALLER.name, "request-7")}
    image_told = await context.store.events.list_of(Kind.IMAGE, image.id, None, 100)
    assert [each.name for each in image_told] == ["created", "finalising", "ready"]


async def test_a_creation_that_fails_is_undone_and_reported(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)

    def refuse(_: wire.AnyRequest) -> wire.Wire:
        raise Refused(ErrorCode.NO_ROOM, "The disk is full.")

    helper.answers[wire.StartInstance] = refuse
    with pytest.raises(NoRoom):
        await new_instance(context, image)
    (last,) = await context.store.events.list_last(None, 1)
    assert (last.name, last.kind) == ("destroyed", Kind.INSTANCE)


def test_every_status_has_a_way_to_its_end() -> None:
    """A failed change never destroys a resource that a caller has seen."""
    for changes in CHANGES.values():
        reached = {after for before, after in changes if before is None}
        while more := {after for before, after in changes if before in reached} - reached:
            reached |= more
        assert reached == {before for before, _ in changes if before is not None} | {None}
    assert {change for change, (_, undo) in INSTANCES.items() if undo is Undo.DESTROY} == {(None, "creating")}


async def test_a_change_that_is_not_legal_changes_nothing(context: Context, dsn: str) -> None:
    image = await ready_image(context)
    instance = await new_instance(context, image)
    before = await of_instance(context, instance.id)
    with pytest.raises(KeyError):
        await context.store.instances.change_status(instance.id, InstanceStatus.RUNNING, InstanceStatus.CREATING)
    found = await context.store.instances.get(instance.id)
    assert found is not None
    assert (found.status, await of_instance(context, instance.id)) == (InstanceStatus.RUNNING, before)


async def test_a_rolled_back_change_writes_no_event(
    context: Context, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = await ready_image(context)
    database = Database(dsn)
    await database.open()
    before = await context.store.events.list_last(None, 100)

    async def change_and_break() -> None:
        async with take_turn(database) as turn:
            values = {"id": image.id}
            await turn.change(
                Kind.IMAGE, [ImageStatus.READY], ImageStatus.DESTROYING, where="id = %(id)s", values=values
            )
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await change_and_break()
    assert await context.store.events.list_last(None, 100) == before
    assert "destroying" not in caplog.text
    await database.close()


async def test_a_reader_of_later_events_misses_none(context: Context) -> None:
    """Concurrent changes are committed in the order of their ids."""
    image = await ready_image(context)
    seen: list[Event] = []
    done = asyncio.Event()

    async def follow() -> None:
        while True:
            finished = done.is_set()
            found = await context.store.events.list_after(seen[-1].id if seen else 0, None, 3)
            seen.extend(found)
            if finished and not found:
                return

    async def live() -> None:
        instance = await new_instance(context, image)
        await instances.destroy(context, CALLER, instance.id)

    follower = asyncio.create_task(follow())
    await asyncio.gather(*(live() for _ in range(8)))
    await settle(context)
    done.set()
    await follower
    assert seen == await context.store.events.list_last(None, 1000)
    assert len([each for each in seen if (each.name, each.owner) == ("destroyed", CALLER.name)]) == 8


async def test_users_see_their_own_events(context: Context) -> None:
    image = await ready_image(context)
    hers, _ = await instances.create(context, ANN, image.id)
    his, _ = await instances.create(context, BOB, image.id)
    for caller, instance in ((ANN, hers), (BOB, his)):
        found = await events.list_own(context, caller, None)
        assert {each.subject_id for each in found} == {instance.id}
        assert await events.list_own(context, caller, found[-1].id) == []
    everybodys = await events.list_everybodys(context, CALLER, None)
    assert {each.subject_id for each in everybodys if each.kind is Kind.INSTANCE} >= {hers.id, his.id}


async def test_the_oldest_events_above_the_maximum_are_deleted(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ready_image(context)
    last = await context.store.events.list_last(None, 100)
    monkeypatch.setattr(events_table, "MAX_KEPT", 2)
    await context.store.events.prune()
    assert await context.store.events.list_last(None, 100) == last[-2:]


async def test_the_metadata_refuse_an_event_without_a_subject(dsn: str, context: Context) -> None:
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "INSERT INTO events (kind, subject_id, name, caller, reason, request_id) VALUES ('x', 1, '', '', '', '')"
        )


def test_only_transitions_change_a_status() -> None:
    """Otherwise there would be no event."""
    for path in Path(store.__file__).parent.glob("*.py"):
        if path.name != "transitions.py":
            assert not re.search(r"SET status|DELETE FROM (images|instances)\b", path.read_text()), path.name


def test_the_names_of_events_are_those_of_the_documents() -> None:
    names = {change.name for changes in CHANGES.values() for change in changes.values()} | {lifecycles.CLAIMED}
    text = Path("docs/API.md").read_text()
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
