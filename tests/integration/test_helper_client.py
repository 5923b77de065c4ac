"""The helper's client against a real socket with an arbitrary peer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from draupnir.errors import DraupnirError, HelperUnavailable
from draupnir.helper import HelperClient, PortInUse
from draupnir_helper import server, wire

pytestmark = pytest.mark.anyio

Peer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
DONE = b'{"reply": {}, "refusal": null}'


@asynccontextmanager
async def answering(tmp_path: Path, peer: Peer) -> AsyncIterator[HelperClient]:
    """Provide a client of a peer that reads one request, then runs the test's function."""

    # From Python 3.12 on a closed server waits for its handlers, and some of these never end.
    handlers: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        try:
            await peer(await reader.read(-1), writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    path = str(tmp_path / "socket")
    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield HelperClient(path)
        for handler in handlers:
            if handler is not None:
                handler.cancel()


def saying(*texts: bytes) -> Peer:
    """Answer with these bytes."""

    async def peer(_: bytes, writer: asyncio.StreamWriter) -> None:
        for text in texts:
            writer.write(text)
            await writer.drain()

    return peer


async def test_one_request_is_one_connection_closed_by_halves(tmp_path: Path) -> None:
    seen: list[object] = []

    async def peer(request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(wire.parse_request(request))
        writer.write(DONE)

    script = "é" * 2**19
    finalise = wire.StartFinalise(
        image_id=7,
        postgres_major=17,
        anonymisation_script=script,
        carried_over={},
        given={"work_mem": "64MB"},
        canaries=["jane@corp.example"],
        keep_residue=True,
    )
    asked = [wire.CreateUpload(image_id=7), finalise]
    async with answering(tmp_path, peer) as client:
        assert await client.ask(wire.CreateUpload(image_id=7)) == wire.Done()
        with pytest.raises(HelperUnavailable):
            await client.ask(finalise)
    assert seen == asked


async def test_a_reply_is_the_one_that_belongs_to_the_request(tmp_path: Path) -> None:
    job = wire.Job(
        kind=wire.JobKind.EXTRACT, image_id=1, state=wire.JobState.RUNNING, report=wire.JobReport(), result=""
    )
    text = wire.Answer(reply=job.model_dump(mode="json")).model_dump_json().encode()
    async with answering(tmp_path, saying(text[:9], text[9:])) as client:
        assert await client.ask(wire.StartExtract(image_id=1)) == job
        with pytest.raises(HelperUnavailable, match="have different versions"):
            await client.ask(wire.TakeInventory())


@pytest.mark.parametrize("code", list(wire.ErrorCode))
async def test_every_refusal_becomes_an_error_of_the_service(tmp_path: Path, code: wire.ErrorCode) -> None:
    text = json.dumps({"refusal": {"code": code, "detail": "so it is"}}).encode()
    async with answering(tmp_path, saying(text)) as client:
        with pytest.raises(DraupnirError, match="so it is") as raised:
            await client.ask(wire.DestroyInstance(instance_id=1))
    assert isinstance(raised.value, PortInUse) == (code is wire.ErrorCode.PORT_IN_USE)


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense",
        b"[]",
        b"{}",
        b"\xff\xfe",
        DONE + DONE,
        b'{"reply": {}, "refusal": {"code": "busy", "detail": ""}}',
        b'{"refusal": {"code": "unheard_of", "detail": ""}}',
        b'{"reply": {"extra": 1}}',
        b'{"reply": {}',
        b"x" * (wire.MAX_REPLY_BYTES + 1),
    ],
    ids=lambda text: text[:20].decode(errors="replace"),
)
async def test_an_answer_that_violates_the_contract_is_unavailable(tmp_path: Path, text: bytes) -> None:
    async with answering(tmp_path, saying(text)) as client:
        with pytest.raises(HelperUnavailable, match="have different versions"):
            await client.ask(wire.DestroyInstance(instance_id=1))


@pytest.mark.parametrize("protocol", [1, wire.PROTOCOL + 1])
async def test_a_helper_of_another_protocol_is_unavailable_until_both_are_of_one(tmp_path: Path, protocol: int) -> None:
    handled: list[wire.AnyRequest] = []

    def handle(request: wire.AnyRequest) -> wire.Done:
        handled.append(request)
        return wire.Done()

    async def helper_itself(frame: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(server.answer_to(frame, handle).model_dump_json(exclude_none=True).encode())

    request = wire.DestroyInstance(instance_id=1)
    async with answering(tmp_path, helper_itself) as client:
        with pytest.raises(HelperUnavailable, match=rf"protocol {protocol}, .* try again"):
            await client.ask(request.model_copy(update={"protocol": protocol}))
        assert handled == []
        await client.ask(request)
    assert handled == [request]


async def test_a_missing_answer_ends_at_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.Inspect, "deadline_s", 0.05)

    async def peer(_: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with answering(tmp_path, peer) as client:
        with pytest.raises(HelperUnavailable, match="did not answer inspect within"):
            await client.inspect()


async def test_a_helper_restarted_under_a_request_is_asked_once_more(tmp_path: Path) -> None:
    requests: list[bytes] = []

    async def peer(request: bytes, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        if len(requests) == 2:
            writer.write(DONE)

    async with answering(tmp_path, peer) as client:
        assert await client.ask(wire.StopJobs(image_id=3)) == wire.Done()
    assert requests[0] == requests[1]


async def test_a_helper_that_is_killed_repeatedly_is_unavailable(tmp_path: Path) -> None:
    async with answering(tmp_path, saying()) as client:
        with pytest.raises(HelperUnavailable, match="closed the connection during stop_jobs"):
            await client.ask(wire.StopJobs(image_id=3))


async def test_a_missing_socket_is_reported_with_its_unit(tmp_path: Path) -> None:
    with pytest.raises(HelperUnavailable, match=r"draupnir-helper\.socket"):
        await HelperClient(str(tmp_path / "none")).inspect()
