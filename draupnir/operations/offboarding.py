"""Finds revoked users: asks the identity provider about each user with an instance, session or token, once an interval.

Only the provider's definite word counts. What it could not say is asked again, ever more seldom, and closes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from draupnir import audit
from draupnir.callers import Standing, User
from draupnir.errors import DraupnirError
from draupnir.operations import people, retention
from draupnir.operations.context import Context

MAX_PAUSE_S = 10.0
AT_ONCE = 4
FIRST_RETRY_S = 15.0
# People who once were asked about in the same moment drift apart again.
EARLIEST = 0.8
# At the end of the daemon what the provider is saying just now is heard out: it takes each refresh token once.
LAST_WORDS_S = 5.0

_NOT_FOUND_OUT = frozenset({Standing.UNKNOWN, Standing.UNCLEAR})

log = logging.getLogger(__name__)


class Rounds:
    """When to ask about whom, by a clock that nobody can set."""

    def __init__(self, interval: timedelta) -> None:
        self._interval_s = interval.total_seconds()
        self._due_s: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def due(self, users: Collection[User]) -> list[User]:
        """The users to check now; forgets those who are no longer among the users."""
        emails = {user.email for user in users}
        self._due_s = {email: due_s for email, due_s in self._due_s.items() if email in emails}
        self._failures = {email: failures for email, failures in self._failures.items() if email in emails}
        for user in users:
            if user.email not in self._due_s:
                self._due_s[user.email] = time.monotonic() + self._first_pause_s(user)
        return [user for user in users if self._due_s[user.email] <= time.monotonic()]

    def note(self, user: User, standing: Standing) -> None:
        """What came of asking."""
        failures = self._failures.get(user.email, 0) + 1 if standing in _NOT_FOUND_OUT else 0
        self._failures[user.email] = failures
        # No more doublings than a float can take.
        retry_s = FIRST_RETRY_S * 2 ** min(failures - 1, 30)
        pause_s = min(self._interval_s, retry_s) if failures else self._interval_s
        self._due_s[user.email] = time.monotonic() + pause_s * random.uniform(EARLIEST, 1)  # noqa: S311

    def _first_pause_s(self, user: User) -> float:
        """What is left of the interval; those for whom nothing is are not asked about in one moment."""
        age_s = (datetime.now(UTC) - user.checked_at).total_seconds()
        left_s = self._interval_s * EARLIEST - max(0.0, age_s)
        return max(left_s, random.uniform(0, self._interval_s / 10))  # noqa: S311


async def run(context: Context) -> None:
    """Check users, and count the time of closed instances, until cancelled."""
    rounds = Rounds(context.settings.clean_interval)
    pause_s = min(MAX_PAUSE_S, context.settings.clean_interval.total_seconds() / 4)
    counted_at_s = time.monotonic()
    while True:
        await asyncio.sleep(pause_s)
        # Time in which the metadata could not be reached is not counted: nobody could have restored anything.
        elapsed_s = time.monotonic() - counted_at_s
        counted_at_s += elapsed_s
        try:
            await context.store.retention.count_closed(elapsed_s)
            await context.store.users.count_refused(elapsed_s)
            if context.sign_in is not None:
                await ask_about_all(context, rounds)
        except DraupnirError as error:
            log.info("no user could be checked: %s", error.detail)


async def ask_about_all(context: Context, rounds: Rounds) -> None:
    """Ask about all who are due, a few at once. Raises MetadataUnavailable."""
    waiting = deque(rounds.due(await context.store.users.list_concerned()))

    async def ask_in_turn() -> None:
        while waiting:
            user = waiting.popleft()
            rounds.note(user, await _ask_about(context, user))

    askers = [asyncio.create_task(ask_in_turn()) for _ in range(min(AT_ONCE, len(waiting)))]
    if not askers:
        return
    try:
        await asyncio.wait(askers)
    except asyncio.CancelledError:
        waiting.clear()
        await _hear_out(askers)
        raise
    for asker in askers:
        asker.result()


async def _ask_about(context: Context, user: User) -> Standing:
    try:
        standing = await people.check(context, user)
        if standing is Standing.REVOKED:
            await _lock_out(context, user)
        if standing in _NOT_FOUND_OUT:
            log.info("the check of %s failed; it is repeated", user.email)
    except DraupnirError as error:
        log.warning("the check of %s could not be completed: %s", user.email, error.detail)
        return Standing.UNKNOWN
    return standing


async def _lock_out(context: Context, user: User) -> None:
    """Revoke a user and close their instances; a Postgres that stops slowly delays no other check."""
    left_behind = await context.store.users.leave(user)
    if left_behind is not None:
        with audit.for_reason(f"owner_left:{user.email}"):
            audit.record_work(audit.origin.get(), f"lock out {user.email}", None)
            retention.begin_closing(context, left_behind)


async def _hear_out(askers: Collection[asyncio.Task[None]]) -> None:
    """Until they have ended or the time is up, however often this is cancelled until then."""
    deadline_s = time.monotonic() + LAST_WORDS_S
    while (left_s := deadline_s - time.monotonic()) > 0 and not all(asker.done() for asker in askers):
        with suppress(asyncio.CancelledError):
            await asyncio.wait(askers, timeout=left_s)
    for asker in askers:
        asker.cancel()
