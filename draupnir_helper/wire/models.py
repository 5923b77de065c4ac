"""What all requests and replies have in common: their bases, the ids, and the errors. Imports pydantic and stdlib."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Generic, Self, TypeAlias, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

# Raise it with every change of the contract that one side would not understand of the other.
PROTOCOL = 2

# Uids are an id added to a base (layout.py), so ids stay below the width of a uid block.
MAX_ID = 2**26 - 1

ImageId = Annotated[int, Field(strict=True, ge=1, le=MAX_ID)]
InstanceId = Annotated[int, Field(strict=True, ge=1, le=MAX_ID)]
PostgresMajor = Annotated[int, Field(strict=True, ge=10, le=99)]


class Wire(BaseModel):
    """Base of everything that crosses the socket: frozen, strict, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


R = TypeVar("R", bound=Wire)


class Request(Wire, Generic[R]):
    """A request whose reply is an R; the daemon waits `deadline_s` for it.

    Every request is idempotent: a second one finds the work done and gets the same reply.
    """

    deadline_s: ClassVar[float] = 60
    protocol: int = PROTOCOL
    op: str

    @classmethod
    def reply_type(cls) -> type[R]:
        """Return the class of the reply, which stands in the brackets of the request's base."""
        base = cast("type[BaseModel]", cls.__bases__[0])
        (reply,) = base.__pydantic_generic_metadata__["args"]
        return cast("type[R]", reply)

    @classmethod
    def by(cls, handler: Callable[[Self], R]) -> tuple[type[Request[Any]], Callable[[Any], Wire]]:
        """Pair the request with its handler; a handler of another request or reply does not pass the type checker."""
        return cls, handler


AnyRequest: TypeAlias = Request[Any]


class Done(Wire):
    """The request is done."""


class ErrorCode(StrEnum):
    """Why a request was refused or failed; stable, the daemon maps each to an error of its own."""

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
    """Why the request was not done: a stable code and a sentence for people."""

    code: ErrorCode
    detail: str


class Answer(Wire):
    """What comes back on the socket: exactly one of the two is set."""

    reply: dict[str, object] | None = None
    refusal: Refusal | None = None
