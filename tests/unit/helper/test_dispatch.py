"""Requests for one image or instance are served in order, and those for different ones do not block each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from draupnir_helper import dispatch, wire
from draupnir_helper.dispatch import Dispatcher
from draupnir_helper.settings import Settings
from draupnir_helper.wire import AnyRequest, Wire

# Only a hang reaches this deadline.
DEADLINE_S = 20

Handler = Callable[[AnyRequest], Wire]
With = Callable[[Handler], Dispatcher]


@pytest.fixture
def dispatcher_with(monkeypatch: pytest.MonkeyPatch) -> With:
    """Return a dispatcher with one handler for all requests."""

    def make(handler: Handler) -> Dispatcher:
        asked = (wire.CloseInstance, wire.DestroyInstance, wire.DestroyImage)
        monkeypatch.setattr(dispatch, "handlers", lambda _: dict.fromkeys(asked, handler))
        return Dispatcher(Settings())

    return make


@pytest.mark.parametrize(
    "requests",
    [
        (wire.DestroyInstance(instance_id=1), wire.DestroyInstance(instance_id=2)),
        (wire.DestroyImage(image_id=1), wire.DestroyImage(image_id=2)),
        (wire.DestroyImage(image_id=1), wire.DestroyInstance(instance_id=1)),
    ],
    ids=["instances", "images", "an image and an instance"],
)
def test_requests_for_different_ids_are_served_at_the_same_time(
    dispatcher_with: With, requests: tuple[AnyRequest, AnyRequest]
) -> None:
    both_are_there = threading.Barrier(2, timeout=DEADLINE_S)

    def meet(_: AnyRequest) -> Wire:
        both_are_there.wait()
        return wire.Done()

    dispatcher = dispatcher_with(meet)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(dispatcher, requests)) == [wire.Done()] * 2


def test_requests_for_one_id_are_served_in_order(dispatcher_with: With) -> None:
    """During the first request a hundred for other ids are served, while the earlier second one waits."""
    entered, leave = threading.Event(), threading.Event()
    seen: list[str] = []

    def handle(request: AnyRequest) -> Wire:
        if isinstance(request, wire.CloseInstance):
            seen.append("closing")
            entered.set()
            assert leave.wait(DEADLINE_S)
            seen.append("closed")
        elif request == wire.DestroyInstance(instance_id=1):
            seen.append("destroyed")
        return wire.Done()

    dispatcher = dispatcher_with(handle)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(dispatcher, wire.CloseInstance(instance_id=1))
        assert entered.wait(DEADLINE_S)
        second = threads.submit(dispatcher, wire.DestroyInstance(instance_id=1))
        for other in range(2, 102):
            threads.submit(dispatcher, wire.DestroyInstance(instance_id=other)).result(DEADLINE_S)
        leave.set()
        assert [first.result(), second.result()] == [wire.Done()] * 2
    assert seen == ["closing", "closed", "destroyed"]


def test_every_request_has_a_handler() -> None:
    assert dispatch.handlers(Settings()).keys() == set(wire.REQUESTS)


def test_every_request_names_its_reply() -> None:
    assert all(issubclass(kind.reply_type(), wire.Wire) for kind in wire.REQUESTS)
    assert wire.SealUpload.reply_type() is wire.Sealed
