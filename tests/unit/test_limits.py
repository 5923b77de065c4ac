"""Laws of the rate limits: a burst, then a rate; the memory is bounded, and does not reveal tokens."""

from __future__ import annotations

import pickle
from ipaddress import ip_address

import pytest

from draupnir.api.limits import MAX_REMEMBERED, Limit, Limits, network_of
from draupnir.errors import TooManyRequests

HERE, THERE = ip_address("10.0.0.1"), ip_address("10.0.0.2")


class Clock:
    """A clock that the test advances."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def tries(limit: Limit, most: int = 1000) -> int:
    """Count the allowed tries before the first refusal."""
    for number in range(most):
        try:
            limit.take(HERE)
        except TooManyRequests:
            return number
    return most


def test_a_burst_is_allowed_then_one_try_each_interval(clock: Clock) -> None:
    limit = Limit(5, 2.0, clock)
    assert tries(limit) == 5
    clock.now_s += 2.0
    assert tries(limit) == 1
    clock.now_s += 5.0
    assert tries(limit) == 2
    clock.now_s += 1000.0
    assert tries(limit) == 5


def test_a_client_that_obeys_retry_after_is_accepted(clock: Clock) -> None:
    limit = Limit(3, 2.5, clock)
    tries(limit)
    with pytest.raises(TooManyRequests) as told:
        limit.take(HERE)
    clock.now_s += told.value.retry_after_s
    limit.take(HERE)


def test_refused_tries_do_not_extend_the_wait(clock: Clock) -> None:
    limit = Limit(3, 2.0, clock)
    tries(limit)
    for _ in range(100):
        with pytest.raises(TooManyRequests):
            limit.take(HERE)
    clock.now_s += 2.0
    limit.take(HERE)


def test_sources_have_separate_limits(clock: Clock) -> None:
    limit = Limit(3, 2.0, clock)
    tries(limit)
    limit.take(THERE)


def test_the_memory_of_limits_is_bounded(clock: Clock) -> None:
    limits = Limits(clock)
    for number in range(3 * MAX_REMEMBERED):
        source = ip_address(number)
        limits.sign_ins.take(source)
        limits.begin_trying(source, f"{number}")
        limits.was_right(source, f"{number}")
    assert len(limits.sign_ins._clear_at) <= MAX_REMEMBERED
    assert len(limits._wrong_tokens._clear_at) <= MAX_REMEMBERED
    assert len(limits._right) <= MAX_REMEMBERED


def test_no_token_is_kept(clock: Clock) -> None:
    limits = Limits(lambda: 0.0)
    limits.begin_trying(HERE, "a-canary-token")
    limits.was_right(HERE, "a-canary-token")
    kept = pickle.dumps((list(limits._right), list(limits._wrong_tokens._clear_at), limits._key))
    assert b"canary" not in kept


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_addresses_that_one_customer_has_count_together(one: str, other: str, together: bool) -> None:
    assert (network_of(ip_address(one)) == network_of(ip_address(other))) == together
