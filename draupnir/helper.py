"""The client of the helper's socket: sends one typed request, and returns one reply."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TypeVar

from pydantic import ValidationError

from draupnir import roles
from draupnir.errors import (
    DraupnirError,
    HelperUnavailable,
    ImageHasInstances,
    Impossible,
    NoRoom,
    NotFound,
    PostgresMissing,
    StorageMissing,
    WrongState,
)
from draupnir_helper import wire

R = TypeVar("R", bound=wire.Wire)


class PortInUse(Impossible):
    """Another program uses the port. The caller may try another port."""

    code = "port_in_use"
    title = "Port in use"


class UnitFailed(DraupnirError):
    """systemd could not start a unit; the detail names it."""

    code = "unit_failed"
    title = "Unit failed"


_ERRORS: dict[wire.ErrorCode, type[DraupnirError]] = {
    wire.ErrorCode.BAD_REQUEST: HelperUnavailable,
    wire.ErrorCode.OTHER_PROTOCOL: HelperUnavailable,
    wire.ErrorCode.NOT_FOUND: NotFound,
    wire.ErrorCode.WRONG_STATE: WrongState,
    wire.ErrorCode.IN_USE: ImageHasInstances,
    wire.ErrorCode.PORT_IN_USE: PortInUse,
    wire.ErrorCode.PORT_OUT_OF_RANGE: DraupnirError,
    wire.ErrorCode.NO_ROOM: NoRoom,
    wire.ErrorCode.STORAGE_MISSING: StorageMissing,
    wire.ErrorCode.POSTGRES_MISSING: PostgresMissing,
    wire.ErrorCode.UNIT_FAILED: UnitFailed,
    wire.ErrorCode.BUSY: HelperUnavailable,
    wire.ErrorCode.INTERNAL: DraupnirError,
}


class Helper(ABC):
    """The helper's interface for operations. A refused request raises the corresponding DraupnirError.

    After HelperUnavailable it is unknown whether the request was executed; every request can be repeated.
    """

    @abstractmethod
    async def exchange(self, request: wire.AnyRequest) -> bytes:
        """Send one request and return the bytes of its Answer. Raises HelperUnavailable."""

    async def ask(self, request: wire.Request[R]) -> R:
        """Send a request and return its reply. Raises Forbidden if roles.py does not allow it."""
        roles.check_request(type(request))
        text = await self.exchange(request)
        try:
            answer = wire.Answer.model_validate_json(text)
            if answer.reply is not None and answer.refusal is None:
                # Validate JSON, because strict mode accepts a string for an enum only there.
                return request.reply_type().model_validate_json(json.dumps(answer.reply))
        except ValidationError as error:
            raise _outside_the_contract(request) from error
        if answer.refusal is None or answer.reply is not None:
            raise _outside_the_contract(request)
        raise _ERRORS[answer.refusal.code](answer.refusal.detail)

    async def inspect(self) -> wire.Inspection:
        """Return the state of the machine, for health checks."""
        return await self.ask(wire.Inspect())


class HelperClient(Helper):
    """The helper behind its unix socket, with one connection for each request."""

    def __init__(self, socket_path: str = wire.SOCKET_PATH) -> None:
        self._socket_path = socket_path

    async def exchange(self, request: wire.AnyRequest) -> bytes:
        """Send a request. Repeat it once if a restart of the helper closed the connection."""
        try:
            async with asyncio.timeout(request.deadline_s):
                answer = await self._converse(request) or await self._converse(request)
        except TimeoutError as error:
            raise HelperUnavailable(
                f"The helper did not answer {request.op} within {request.deadline_s:.0f} s;"
                " see `systemctl status draupnir-helper` and try again."
            ) from error
        except OSError as error:
            raise HelperUnavailable(
                f"The helper is unreachable at {self._socket_path} ({error.strerror or error});"
                " see `systemctl status draupnir-helper.socket` and try again."
            ) from error
        if not answer:
            raise HelperUnavailable(
                f"The helper closed the connection during {request.op}; see `journalctl -u draupnir-helper`."
            )
        return answer

    async def _converse(self, request: wire.AnyRequest) -> bytes:
        """Return the answer on one connection, or no bytes if the helper closed the connection."""
        reader, writer = await asyncio.open_unix_connection(self._socket_path)
        try:
            writer.write(request.model_dump_json().encode())
            writer.write_eof()
            await writer.drain()
            answer = bytearray()
            while chunk := await reader.read(64 * 1024):
                answer += chunk
                if len(answer) > wire.MAX_REPLY_BYTES:
                    raise _outside_the_contract(request)
            return bytes(answer)
        except (ConnectionResetError, BrokenPipeError):
            return b""
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def _outside_the_contract(request: wire.AnyRequest) -> HelperUnavailable:
    return HelperUnavailable(
        f"The daemon and the helper have different versions: the answer to {request.op} is invalid;"
        " `systemctl restart draupnir-helper draupnir` restarts both with the installed version."
    )
