"""Base classes, ids and errors of all requests and replies; imports only pydantic and the standard library."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Generic, Self, TypeAlias, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

# Increment it with every incompatible change of the contract.
PROTOCOL = 2

# A uid is a base plus an id (layout.py), so ids stay below the width of a uid block.
MAX_ID = 2**26 - 1

ImageId = Annotated[int, Field(strict=True, ge=1, le=MAX_ID)]
InstanceId = Annotated[int, Field(strict=True, ge=1, le=MAX_ID)]
PostgresMajor = Annotated[int, Field(strict=True, ge=10, le=99)]


class Wire(BaseModel):
    """Base of all messages on the socket: frozen, strict, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


R = TypeVar("R", bound=Wire)


class Request(Wire, Generic[R]):
    """A request whose reply is an R. The daemon waits `deadline_s` for the reply.

    Every request is idempotent: a repetition changes nothing, and returns the same reply.
    """

    deadline_s: ClassVar[float] = 60
    protocol: int = PROTOCOL
    op: str

    @classmethod
    def reply_type(cls) -> type[R]:
        """Return the class of the reply, from the type argument of the request's base."""
        base = cast("type[BaseModel]", cls.__bases__[0])
        (reply,) = base.__pydantic_generic_metadata__["args"]
        return cast("type[R]", reply)

    @classmethod
    def by(cls, handler: Callable[[Self], R]) -> tuple[type[Request[Any]], Callable[[Any], Wire]]:
        """Pair the request with its handler; the type checker rejects a handler of another request or reply."""
        return cls, handler


AnyRequest: TypeAlias = Request[Any]


class Done(Wire):
    """The request is done."""


class ErrorCode(StrEnum):
    """The reason of a refusal or a failure. Codes are stable, and the daemon maps each to one of its own errors."""

    BAD_REQUEST = "bad_request"
    OTHER_PROTOCOL = "other_protocol"
    NOT_FOUND = "not_found"
    WRONG_STATE = "wrong_state"
    IN_USE = "in_use"
    PORT_IN_USE = "port_in_use"
    PORT_OUT_OF_RANGE = "port_out_of_range"
    NO_ROOM = "no_room"
    STORAGE_MISSING = "storage_missing"
    POSTGRES_MISSING = "postgres_missing"
    UNIT_FAILED = "unit_failed"
    BUSY = "busy"
    INTERNAL = "internal"


class Refusal(Wire):
    """The reason why a request was not done: a stable code and a sentence for people."""

    code: ErrorCode
    detail: str


class Answer(Wire):
    """The answer on the socket: exactly one of the fields is set."""

    reply: dict[str, object] | None = None
    refusal: Refusal | None = None
