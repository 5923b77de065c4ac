"""The laws of the requests about instances, all of one published image."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

import pytest

from draupnir_helper import wire
from draupnir_helper.wire import ErrorCode
from tests.laws.rig import MADE_AT, MAX_BYTES, Rig

HUGE = wire.Ceiling(max_bytes=2**60, read_only=False, extended=False)
CEILING = wire.Ceiling(max_bytes=MAX_BYTES, read_only=True, extended=False)
THERE = [ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")]


def traces(rig: Rig, instance_id: int) -> set[str]:
    """Return the existing parts of an instance."""
    inventory = rig.ask(wire.TakeInventory())
    places = {
        "data": inventory.instances,
        "units": [each.instance_id for each in inventory.instance_units],
        "allowlist": [each.instance_id for each in rig.ask(wire.ObserveAddresses()).ports],
    }
    return {name for name, ids in places.items() if instance_id in ids}


def admitted(rig: Rig, instance_id: int) -> object:
    (found,) = (each for each in rig.ask(wire.ObserveAddresses()).ports if each.instance_id == instance_id)
    return None if found.addresses is None else set(found.addresses)


def test_an_instance_is_made_once(rig: Rig, published: int) -> None:
    instance_id = rig.instance_id()
    request = rig.start(instance_id, published, rig.port())
    for _ in range(2):
        assert rig.ask(request).listening
        assert traces(rig, instance_id) == {"data", "units", "allowlist"}
    assert instance_id in {each.instance_id for each in rig.ask(wire.ObserveInstances()).written}
    rig.until(lambda: getattr(rig.state(instance_id), "postgres", "") == "active")


def test_an_open_port_stays_unchanged(rig: Rig, published: int) -> None:
    instance_id, other = rig.instance_id(), rig.instance_id()
    port, another_port = rig.port(), rig.port()
    rig.ask(rig.start(instance_id, published, port))
    assert rig.ask(rig.start(instance_id, published, another_port, addresses=THERE)).listening
    assert admitted(rig, instance_id) is None
    assert rig.ask(rig.start(other, published, another_port)).listening


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"image_id": wire.MAX_ID}, ErrorCode.NOT_FOUND),
        ({"new": False}, ErrorCode.NOT_FOUND),
        ({"ceiling": None}, ErrorCode.BAD_REQUEST),
        ({"ceiling": HUGE}, ErrorCode.BAD_REQUEST),
        ({"superuser": True}, ErrorCode.BAD_REQUEST),
        ({"port": 65535}, ErrorCode.PORT_OUT_OF_RANGE),
        ({"port": 1024}, ErrorCode.PORT_OUT_OF_RANGE),
        ({"postgres_major": 99}, ErrorCode.POSTGRES_MISSING),
        ({"instance_id": 0}, ErrorCode.BAD_REQUEST),
        ({"instance_id": wire.MAX_ID + 1}, ErrorCode.BAD_REQUEST),
    ],
    ids=str,
)
def test_a_start_that_is_refused_makes_nothing(
    rig: Rig, published: int, changed: dict[str, object], code: ErrorCode
) -> None:
    instance_id = rig.instance_id()
    request = rig.start(instance_id, published, rig.port()).model_copy(update=changed)
    for _ in range(2):
        assert rig.refusal(request) is code
        assert traces(rig, instance_id) == set()


def test_two_instances_do_not_share_a_port(rig: Rig, published: int) -> None:
    first, second, port = rig.instance_id(), rig.instance_id(), rig.port()
    rig.ask(rig.start(first, published, port))
    assert rig.refusal(rig.start(second, published, port)) is ErrorCode.PORT_IN_USE
    assert "units" not in traces(rig, second)
    assert traces(rig, first) == {"data", "units", "allowlist"}
    assert rig.ask(rig.start(second, published, rig.port())).listening


def test_the_port_of_another_program_is_left_alone(rig: Rig, published: int) -> None:
    instance_id, port = rig.instance_id(), rig.port()
    with rig.occupy(port):
        assert rig.refusal(rig.start(instance_id, published, port)) is ErrorCode.PORT_IN_USE
        assert "units" not in traces(rig, instance_id)
    assert rig.ask(rig.start(instance_id, published, port)).listening


def test_a_closed_instance_keeps_its_data_and_waits_for_a_connection_once_it_is_opened(
    rig: Rig, published: int
) -> None:
    instance_id, port = rig.instance_id(), rig.port()
    rig.ask(rig.start(instance_id, published, port))
    for _ in range(2):
        assert rig.ask(wire.CloseInstance(instance_id=instance_id)) == wire.Done()
        assert traces(rig, instance_id) == {"data"}
    for _ in range(2):
        state = rig.ask(rig.start(instance_id, published, port, new=False))
        assert (state.listening, state.postgres) == (True, "inactive")
        assert rig.state(instance_id) == state


def test_an_instance_is_destroyed_once(rig: Rig, published: int) -> None:
    instance_id = rig.instance(published)
    rig.until(lambda: rig.ask(wire.EmptyTrash()).left == 0)
    for _ in range(2):
        assert rig.ask(wire.DestroyInstance(instance_id=instance_id)) == wire.Done()
        assert traces(rig, instance_id) == set()
        assert rig.ask(wire.TakeInventory()).trash == 1


@pytest.mark.parametrize(
    "request_of",
    [
        lambda instance_id: wire.CloseInstance(instance_id=instance_id),
        lambda instance_id: wire.DestroyInstance(instance_id=instance_id),
        lambda instance_id: wire.AdmitAddresses(instance_id=instance_id, addresses=THERE),
        lambda instance_id: wire.AssignInstance(
            instance_id=instance_id, image_id=1, owner="bob@example.com", port=6432, created_at=MADE_AT
        ),
    ],
    ids=["close", "destroy", "admit", "assign"],
)
def test_closing_a_missing_instance_succeeds(rig: Rig, request_of: Callable[[int], wire.AnyRequest]) -> None:
    instance_id = rig.instance_id()
    for _ in range(2):
        reply = rig.ask(request_of(instance_id))
        closed = wire.InstanceState(instance_id=instance_id, listening=False, postgres="inactive")
        assert reply in (wire.Done(), closed)
        assert traces(rig, instance_id) == set()


def test_limiting_a_missing_instance_is_refused(rig: Rig) -> None:
    request = wire.LimitInstance(instance_id=rig.instance_id(), ceiling=CEILING, parameters={})
    assert rig.refusal(request) is ErrorCode.NOT_FOUND


def test_no_ceiling_is_lifted_above_the_highest(rig: Rig, published: int) -> None:
    instance_id = rig.instance(published)
    assert (
        rig.refusal(wire.LimitInstance(instance_id=instance_id, ceiling=HUGE, parameters={})) is ErrorCode.BAD_REQUEST
    )
    for _ in range(2):
        assert rig.ask(wire.LimitInstance(instance_id=instance_id, ceiling=CEILING, parameters={})).listening
    rig.ask(wire.CloseInstance(instance_id=instance_id))
    assert not rig.ask(wire.LimitInstance(instance_id=instance_id, ceiling=CEILING, parameters={})).listening


def test_the_loopback_addresses_are_always_on_the_allowlist(rig: Rig, published: int) -> None:
    instance_id = rig.instance(published)
    assert admitted(rig, instance_id) is None
    for addresses in (THERE, THERE, THERE[:1], []):
        assert rig.ask(wire.AdmitAddresses(instance_id=instance_id, addresses=addresses)).listening
        assert admitted(rig, instance_id) == {*wire.LOOPBACK, *addresses}
    rig.ask(wire.AdmitAddresses(instance_id=instance_id, addresses=None))
    assert admitted(rig, instance_id) is None


def test_a_closed_port_has_no_allowlist(rig: Rig, published: int) -> None:
    instance_id, port = rig.instance_id(), rig.port()
    rig.ask(rig.start(instance_id, published, port, addresses=THERE))
    assert admitted(rig, instance_id) == {*wire.LOOPBACK, *THERE}
    rig.ask(wire.CloseInstance(instance_id=instance_id))
    assert not rig.ask(wire.AdmitAddresses(instance_id=instance_id, addresses=THERE)).listening
    assert "allowlist" not in traces(rig, instance_id)


def test_another_owner_changes_nothing_about_the_units(rig: Rig, published: int) -> None:
    instance_id, port = rig.instance_id(), rig.port()
    rig.ask(rig.start(instance_id, published, port))
    request = wire.AssignInstance(
        instance_id=instance_id, image_id=published, owner="bob@example.com", port=port, created_at=MADE_AT
    )
    for _ in range(2):
        assert rig.ask(request).listening
    assert traces(rig, instance_id) == {"data", "units", "allowlist"}


def test_an_image_with_instances_is_not_destroyed(rig: Rig, published: int) -> None:
    instance_id = rig.instance(published)
    for _ in range(2):
        assert rig.refusal(wire.DestroyImage(image_id=published)) is ErrorCode.IN_USE
        assert rig.refusal(wire.DiscardParts(image_id=published, parts=["image"])) is ErrorCode.IN_USE
        rig.ask(wire.CloseInstance(instance_id=instance_id))
    assert published in {each.image_id for each in rig.ask(wire.TakeInventory()).images}
