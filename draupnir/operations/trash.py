"""What was thrown away is deleted behind everybody's back, since that can take minutes."""

from __future__ import annotations

from functools import partial

from draupnir.operations.context import Context
from draupnir.operations.tasks import Subject, Work
from draupnir_helper import wire

_TRASH = Subject("trash", 0)


def empty(context: Context) -> None:
    """Begin to delete what lies in the trash, unless that is under way; what is left the reconciler comes back to."""
    context.tasks.start(Work.EMPTY_TRASH, _TRASH, partial(context.helper.ask, wire.EmptyTrash()))
