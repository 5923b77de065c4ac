"""A compromised daemon gets no more from the helper than the daemon itself, and cannot stop it."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.hostile import daemon
from tests.hostile.daemon import FRAMES, FREE_ID, OUT_OF_ORDER, ask, code_of, connected, start
from tests.system import world
from tests.system.backups import MAJOR
from tests.system.faults import DAEMON, HELPER, await_healthy, await_that, main_pid, restart
from tests.system.service import Service, run
from tests.system.test_helper import resident_kb


@pytest.fixture(autouse=True)
def _in_place_of_the_daemon(service: Service, _unharmed: None) -> Iterator[None]:
    """Stop the daemon during the tests, so that it does not reconcile; check that the helper was not restarted."""
    ask({"op": "inspect"})
    pid = main_pid(HELPER)
    run("systemctl", "stop", DAEMON)
    yield
    assert code_of(ask({"op": "inspect"})) == ""
    assert main_pid(HELPER) == pid
    restart(DAEMON)
    await_healthy(service)


def test_no_frame_outside_the_contract_is_acted_upon() -> None:
    codes = {name: code_of(ask(frame)) for name, frame in FRAMES.items()}
    assert {name: code for name, code in codes.items() if code not in {"bad_request", "hung up"}} == {}


def test_requests_out_of_order_are_refused() -> None:
    codes = {name: (code_of(ask(request)), allowed) for name, (request, allowed) in OUT_OF_ORDER.items()}
    assert {name: code for name, (code, allowed) in codes.items() if code not in allowed} == {}


def test_an_endless_frame_is_cut_off() -> None:
    with connected() as client:
        sent = 0
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(1024):
                client.sendall(b" " * 65536)
                sent += 65536
    assert sent < 1024 * 65536


def test_callers_that_send_half_a_frame_do_not_block_others() -> None:
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connected()).sendall(b'{"op": "inspect"')
        assert code_of(ask({"op": "inspect"})) == ""


def test_callers_that_disconnect_early_leak_nothing() -> None:
    for number in range(300):
        with connected() as client:
            client.sendall(daemon.encoded({"op": "take_inventory"}))
            if number % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.shutdown(socket.SHUT_WR)
    descriptors = f"/proc/{main_pid(HELPER)}/fd"
    await_that(lambda: len(os.listdir(descriptors)) < 60, "the helper has closed what was left")


def test_ten_thousand_bad_frames_cost_no_memory() -> None:
    frames = [frame for frame in FRAMES.values() if len(frame) < 10_000]
    for frame in frames * 4:
        ask(frame)
    before = resident_kb()
    for number in range(10_000):
        ask(frames[number % len(frames)])
    assert resident_kb() - before < 4000


def at_once(*requests: daemon.JSON) -> list[str]:
    """Send all requests before the first answer, and return the codes of the answers."""
    codes = [""] * len(requests)

    def converse(number: int, client: socket.socket) -> None:
        codes[number] = code_of(daemon.say(client, daemon.encoded(requests[number])))

    with ExitStack() as stack:
        clients = [stack.enter_context(connected()) for _ in requests]
        threads = [threading.Thread(target=converse, args=each) for each in enumerate(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return codes


def destroyed(instance_id: int) -> None:
    assert code_of(ask({"op": "destroy_instance", "instance_id": instance_id})) == ""
    ask({"op": "empty_trash"})


def test_the_same_request_many_times_at_once_is_done_once(image: int) -> None:
    request = start(image_id=image, postgres_major=MAJOR)
    assert set(at_once(*[request] * 12)) == {""}
    assert len([path for path in (world.DATA / "instances").glob(f"{FREE_ID}*") if path.is_dir()]) == 1
    destroyed(FREE_ID)


def test_making_and_destroying_at_once_leaves_a_whole_instance_or_none(image: int) -> None:
    request = start(image_id=image, postgres_major=MAJOR)
    destroy = {"op": "destroy_instance", "instance_id": FREE_ID}
    for _ in range(5):
        assert set(at_once(*[request, destroy] * 4)) <= {"", "unit_failed", "busy", "not_found", "port_in_use"}
    destroyed(FREE_ID)


def test_two_instances_do_not_get_one_port(image: int) -> None:
    requests = [start(instance_id=FREE_ID + number, image_id=image, postgres_major=MAJOR) for number in range(4)]
    codes = at_once(*requests)
    assert sorted(codes) == ["", "port_in_use", "port_in_use", "port_in_use"]
    for number in range(4):
        destroyed(FREE_ID + number)


def test_an_image_with_instances_is_not_destroyed(image: int, neighbour: int) -> None:
    assert code_of(ask({"op": "destroy_image", "image_id": image})) == "in_use"
    assert code_of(ask({"op": "discard_parts", "image_id": image, "parts": ["image"]})) == "in_use"
    assert (world.DATA / f"image_snapshots/{image}").exists()


def test_an_image_that_is_destroyed_while_instances_are_made_leaves_none_half_made(image: int) -> None:
    """Either the other request is refused, or an instance is complete without its image."""
    requests = [start(instance_id=FREE_ID + number, image_id=image, port=8001 + number) for number in range(3)]
    codes = at_once({"op": "destroy_image", "image_id": image}, *requests)
    assert codes == ["in_use", "", "", ""]
    for number in range(3):
        destroyed(FREE_ID + number)


def test_an_image_is_not_written_again(image: int) -> None:
    """Neither by another upload under its id, nor by publishing once more."""
    before = sorted(
        (path.name, path.stat().st_mtime_ns) for path in (world.DATA / f"image_snapshots/{image}").iterdir()
    )
    for request in (
        {"op": "create_upload", "image_id": image},
        {"op": "seal_upload", "image_id": image},
        OUT_OF_ORDER["publish what was never finalised"][0] | {"image_id": image},
    ):
        ask(request)
    now = sorted((path.name, path.stat().st_mtime_ns) for path in (world.DATA / f"image_snapshots/{image}").iterdir())
    assert now == before
    for parts in (["seal"], ["upload"], ["work"]):
        ask({"op": "discard_parts", "image_id": image, "parts": parts})
    ask({"op": "empty_trash"})


def test_an_empty_seal_does_not_become_an_image() -> None:
    for op in ("create_upload", "seal_upload", "start_extract"):
        assert code_of(ask({"op": op, "image_id": FREE_ID})) == ""
    publish = OUT_OF_ORDER["publish what was never finalised"][0]
    assert code_of(ask(publish)) == "wrong_state"
    state = {"op": "inspect_job", "kind": "extract", "image_id": FREE_ID}
    await_that(lambda: (ask(state) or {})["reply"]["state"] == "failed", "the extract job has failed")
    finalise = OUT_OF_ORDER["finalise what was never extracted"][0]
    assert code_of(ask(finalise)) == "wrong_state"
    assert code_of(ask(publish)) == "wrong_state"
    assert code_of(ask({"op": "destroy_image", "image_id": FREE_ID})) == ""
    ask({"op": "empty_trash"})


def test_invalid_certificates_give_no_access(image: int) -> None:
    """The port listens, but Postgres does not start."""
    assert code_of(ask(start(image_id=image, postgres_major=MAJOR))) == ""
    done = run("psql", "-XAtqc", "SELECT 1", "host=127.0.0.1 port=8000 user=draupnir dbname=my_db", ok=False)
    assert done.returncode != 0
    destroyed(FREE_ID)


def test_requests_about_a_missing_instance_write_nothing() -> None:
    """Allowlist, close and destroy requests create nothing, either."""
    assign = {
        "op": "assign_instance",
        "instance_id": FREE_ID,
        "image_id": FREE_ID,
        "owner": "a@b.example",
        "port": 8000,
    }
    ask(assign | {"created_at": "2026-01-02T03:04:05Z"})
    ask({"op": "admit_addresses", "instance_id": FREE_ID, "addresses": ["10.0.0.0/8"]})
    ask({"op": "close_instance", "instance_id": FREE_ID})
    assert [path.name for path in (world.DATA / "instances").glob(f"*{FREE_ID}*")] == []
