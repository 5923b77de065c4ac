"""Finds revoked users: asks the identity provider periodically about each user with an instance, session or token.

Only a definite answer of the provider counts. After any other answer the check is repeated with growing pauses.
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
# A random factor from here to 1 spreads the checks of users who were checked at the same time.
EARLIEST = 0.8
# When the daemon stops, wait for running checks, because the provider accepts each refresh token only once.
LAST_WORDS_S = 5.0

_NOT_FOUND_OUT = frozenset({Standing.UNKNOWN, Standing.UNCLEAR})

log = logging.getLogger(__name__)


class Rounds:
    """The schedule of checks, by the monotonic clock."""

    def __init__(self, interval: timedelta) -> None:
        self._interval_s = interval.total_seconds()
        self._due_s: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def due(self, users: Collection[User]) -> list[User]:
        """Return the users to check now, and forget users who are no longer in the list."""
        emails = {user.email for user in users}
        self._due_s = {email: due_s for email, due_s in self._due_s.items() if email in emails}
        self._failures = {email: failures for email, failures in self._failures.items() if email in emails}
        for user in users:
            if user.email not in self._due_s:
                self._due_s[user.email] = time.monotonic() + self._first_pause_s(user)
        return [user for user in users if self._due_s[user.email] <= time.monotonic()]

    def note(self, user: User, standing: Standing) -> None:
        """Record the result of a check."""
        failures = self._failures.get(user.email, 0) + 1 if standing in _NOT_FOUND_OUT else 0
        self._failures[user.email] = failures
        # The exponent is limited, because a float overflows.
        retry_s = FIRST_RETRY_S * 2 ** min(failures - 1, 30)
        pause_s = min(self._interval_s, retry_s) if failures else self._interval_s
        self._due_s[user.email] = time.monotonic() + pause_s * random.uniform(EARLIEST, 1)  # noqa: S311

    def _first_pause_s(self, user: User) -> float:
        """Return the rest of the interval. Overdue checks are spread over a tenth of the interval."""
        age_s = (datetime.now(UTC) - user.checked_at).total_seconds()
        left_s = self._interval_s * EARLIEST - max(0.0, age_s)
        return max(left_s, random.uniform(0, self._interval_s / 10))  # noqa: S311


async def run(context: Context) -> None:
    """Check users, and count the retention time of closed instances, until cancelled."""
    rounds = Rounds(context.settings.clean_interval)
    pause_s = min(MAX_PAUSE_S, context.settings.clean_interval.total_seconds() / 4)
    counted_at_s = time.monotonic()
    while True:
        await asyncio.sleep(pause_s)
        # Do not count time without metadata, because instances could not be restored then.
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
    """Check all users who are due, a few at a time. Raises MetadataUnavailable."""
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
    """Revoke a user and close their instances, without waiting for Postgres to stop."""
    left_behind = await context.store.users.leave(user)
    if left_behind is not None:
        with audit.for_reason(f"owner_left:{user.email}"):
            audit.record_work(audit.origin.get(), f"lock out {user.email}", None)
            retention.begin_closing(context, left_behind)


async def _hear_out(askers: Collection[asyncio.Task[None]]) -> None:
    """Wait for the tasks or a timeout, even if cancelled repeatedly."""
    deadline_s = time.monotonic() + LAST_WORDS_S
    while (left_s := deadline_s - time.monotonic()) > 0 and not all(asker.done() for asker in askers):
        with suppress(asyncio.CancelledError):
            await asyncio.wait(askers, timeout=left_s)
    for asker in askers:
        asker.cancel()
