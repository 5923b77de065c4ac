"""Laws of the output: it is aligned, and harmless to a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draupnir_client import output


@given(st.text())
def test_no_output_can_control_a_terminal(text: str) -> None:
    shown = output.clean(text)
    assert not any(unicodedata.category(character).startswith("C") and character.isascii() for character in shown)
    assert not {"\x1b", "\x9b", "\u202e", "\u2028", "\n", "\r"} & set(shown)


def test_unprintable_text_is_still_reported() -> None:
    assert output.clean("a\x1b[31mb\u202ec") == "a\\x1b[31mb\\u202ec"


def test_columns_are_as_wide_as_their_widest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["ID", "STATUS"], [["1", "ready"], ["100", "failed\n"]])
    assert capsys.readouterr().out == "ID   STATUS\n1    ready\n100  failed\\n\n"


@pytest.mark.parametrize(
    ("size_bytes", "written"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes_have_at_most_one_decimal(size_bytes: int | None, written: str) -> None:
    assert output.format_size(size_bytes) == written


@pytest.mark.parametrize(("seconds", "written"), [(0, "0:00"), (61.9, "1:01"), (3600, "1:00:00"), (90061, "25:01:01")])
def test_durations_are_clock_like(seconds: float, written: str) -> None:
    assert output.format_duration(seconds) == written
