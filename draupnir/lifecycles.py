"""The life cycles of images and instances: each legal change of a status, its name, and how it is undone.

The store refuses all other changes. This module is independent of HTTP and SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from draupnir.models import ImageStatus, InstanceStatus


class Undo(StrEnum):
    """The reaction to a failure of the work that follows a change of status.

    DESTROY: the subject is destroyed, because no caller has seen it yet. RETRY: its data stay, and the reconciler tries
    again. RETURN: the previous status is restored.
    """

    DESTROY = "destroy"
    RETRY = "retry"
    RETURN = "return"


class Change(NamedTuple):
    """A legal change of a status: its name in events, and how to undo it if the work fails."""

    name: str
    undo: Undo


_CREATING, _RUNNING, _STOPPED = InstanceStatus.CREATING, InstanceStatus.RUNNING, InstanceStatus.STOPPED
_CLOSED, _DESTROYING = InstanceStatus.CLOSED, InstanceStatus.DESTROYING

# The keys are the statuses before and after; None is before the first and after the last status.
INSTANCES: Mapping[tuple[str | None, str | None], Change] = {
    (None, _CREATING): Change("created", Undo.DESTROY),
    (_CREATING, _RUNNING): Change("started", Undo.RETRY),
    (_RUNNING, _STOPPED): Change("stopped", Undo.RETRY),
    (_STOPPED, _RUNNING): Change("restarted", Undo.RETRY),
    (_RUNNING, _CLOSED): Change("closed", Undo.RETRY),
    (_STOPPED, _CLOSED): Change("closed", Undo.RETRY),
    (_CLOSED, _RUNNING): Change("restored", Undo.RETRY),
    (_CREATING, _DESTROYING): Change("destroying", Undo.RETRY),
    (_RUNNING, _DESTROYING): Change("destroying", Undo.RETRY),
    (_STOPPED, _DESTROYING): Change("destroying", Undo.RETRY),
    (_CLOSED, _DESTROYING): Change("destroying", Undo.RETRY),
    (_DESTROYING, None): Change("destroyed", Undo.RETRY),
}
_AWAITING, _FINALISING, _READY = ImageStatus.AWAITING_UPLOAD, ImageStatus.FINALISING, ImageStatus.READY
_FAILED, _ENDING = ImageStatus.FAILED, ImageStatus.DESTROYING
IMAGES: Mapping[tuple[str | None, str | None], Change] = {
    (None, _AWAITING): Change("created", Undo.DESTROY),
    (_AWAITING, _FINALISING): Change("finalising", Undo.RETURN),
    (_FAILED, _FINALISING): Change("finalising", Undo.RETURN),
    (_FINALISING, _READY): Change("ready", Undo.RETRY),
    (_FINALISING, _FAILED): Change("failed", Undo.RETRY),
    (_FINALISING, _AWAITING): Change("returned", Undo.RETRY),
    (_AWAITING, _ENDING): Change("destroying", Undo.RETRY),
    (_FINALISING, _ENDING): Change("destroying", Undo.RETRY),
    (_READY, _ENDING): Change("destroying", Undo.RETRY),
    (_FAILED, _ENDING): Change("destroying", Undo.RETRY),
    (_ENDING, None): Change("destroyed", Undo.RETRY),
}
# An instance of the pool gets its owner, without a change of its status.
CLAIMED = "claimed"


class Kind(StrEnum):
    """The kind of an event's subject."""

    IMAGE = "image"
    INSTANCE = "instance"


CHANGES: Mapping[Kind, Mapping[tuple[str | None, str | None], Change]] = {Kind.IMAGE: IMAGES, Kind.INSTANCE: INSTANCES}


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a status: subject, status before and after, caller and reason.

    `owner` is the instance's owner at that time, or None for an image. `caller` is `draupnir` for the service itself.
    """

    id: int
    happened_at: datetime
    kind: Kind
    subject_id: int
    name: str
    before: str | None
    after: str | None
    owner: str | None
    caller: str
    reason: str
    request_id: str
