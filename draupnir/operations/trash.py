"""Empties the trash in the background, because that can take minutes."""

from __future__ import annotations

from functools import partial

from draupnir.operations.context import Context
from draupnir.operations.tasks import Subject, Work
from draupnir_helper import wire

_TRASH = Subject("trash", 0)


def empty(context: Context) -> None:
    """Start to empty the trash, unless that is running. The reconciler repeats it for leftovers."""
    context.tasks.start(Work.EMPTY_TRASH, _TRASH, partial(context.helper.ask, wire.EmptyTrash()))
