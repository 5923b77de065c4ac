"""The job's sessions at the same time fit into its server, however many processors the machine has."""

from __future__ import annotations

import os

import pytest

from draupnir_helper import postgres
from draupnir_helper.jobs import sessions


@pytest.mark.parametrize("processors", [1, 2, 41, 64, 1024])
def test_no_number_of_processors_takes_more_sessions_than_the_server_has(
    monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    # Superusers have the last three, and each session of VACUUM leaves one behind for a moment.
    assert 1 <= 2 * sessions.at_once() <= postgres.JOB_CONNECTIONS - 3


def test_each_task_runs_once_and_the_answers_keep_their_order() -> None:
    assert sessions.in_each(map(str, range(100)), lambda name: name * 2) == [str(n) * 2 for n in range(100)]
