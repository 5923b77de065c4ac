"""Runs a task in several sessions of the job's server at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# The server has 40 connections.
_MOST = 16
_Found = TypeVar("_Found")


def at_once() -> int:
    """Return the number of sessions to run at the same time: one for each processor, up to a limit."""
    return max(1, min(len(os.sched_getaffinity(0)), _MOST))


def in_each(databases: Iterable[str], task: Callable[[str], _Found]) -> list[_Found]:
    """Run the task for each database, some at the same time, and return the results."""
    with ThreadPoolExecutor(max_workers=at_once()) as pool:
        return list(pool.map(task, databases))
