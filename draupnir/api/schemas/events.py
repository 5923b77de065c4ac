"""Bodies about events."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from draupnir.api.schemas.values import WrittenTime, write_time
from draupnir.lifecycles import Event, Kind


class Subject(TypedDict):
    """The subject of an event."""

    type: Literal["images", "instances"]
    id: str


# `from` is a Python keyword.
EventAttributes = TypedDict(
    "EventAttributes",
    {
        "happened_at": WrittenTime,
        "event": Annotated[str, Field(description="Such as `created`, `started` or `destroyed`.")],
        "subject": Subject,
        "from": Annotated[str | None, Field(description="The status before; null if it was created.")],
        "to": Annotated[str | None, Field(description="The status after; null if it was destroyed.")],
        "owner": Annotated[str | None, Field(description="The owner of the instance at that time; null for images.")],
        "caller": Annotated[str, Field(description="Who caused it; `draupnir` for the service itself.")],
        "reason": str | None,
        "request_id": str,
    },
)


class EventResource(TypedDict):
    """The change of a status."""

    type: Literal["events"]
    id: str
    attributes: EventAttributes


def write_event(event: Event) -> EventResource:
    """Return the resource object of an event."""
    attributes: EventAttributes = {
        "happened_at": write_time(event.happened_at),
        "event": event.name,
        "subject": {"type": "images" if event.kind is Kind.IMAGE else "instances", "id": str(event.subject_id)},
        "from": event.before,
        "to": event.after,
        "owner": event.owner,
        "caller": event.caller,
        "reason": event.reason or None,
        "request_id": event.request_id,
    }
    return {"type": "events", "id": str(event.id), "attributes": attributes}
