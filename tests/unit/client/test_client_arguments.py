"""Laws of durations on the command line: valid ones are parsed exactly, and others are refused."""

from __future__ import annotations

import re

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from draupnir_client.arguments import Duration
from draupnir_client.output import format_wait

UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    return Duration().convert(text, None, None)


@given(st.integers(0, 999_999_999), st.sampled_from(sorted(UNIT_S)))
def test_a_duration_is_its_number_of_its_unit(number: int, unit: str) -> None:
    assert seconds(f"{number}{unit}") == number * UNIT_S[unit]


def test_never_is_0() -> None:
    assert seconds("never") == 0


@given(st.integers(0, 999_999_999))
def test_a_shown_duration_can_be_entered(wait_s: int) -> None:
    assert seconds(format_wait(wait_s)) == wait_s


@pytest.mark.parametrize(
    ("wait_s", "shown"),
    [(None, "-"), (0, "never"), (1, "1s"), (90, "90s"), (600, "10m"), (5400, "90m"), (7200, "2h"), (86400, "1d")],
)
def test_the_largest_unit_that_fits_is_shown(wait_s: int | None, shown: str) -> None:
    assert format_wait(wait_s) == shown


@given(
    st.text(max_size=12).filter(lambda text: text != "never" and not re.fullmatch("[0-9]{1,9}[smhd]?", text))
    | st.sampled_from(["1.5h", "-1", "+5", "1h30m", "10 m", "5min", "1w", "٣", "1\n", "9" * 5000, "Never", "1e3"])
)
def test_an_invalid_duration_gets_advice(text: str) -> None:
    with pytest.raises(click.BadParameter, match="90s, 10m, 2h or 1d, or never"):
        seconds(text)
