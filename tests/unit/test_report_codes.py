"""The codes of reports are documented and sorted."""

from __future__ import annotations

import re
from pathlib import Path

from draupnir_helper.report_codes import CODES

GUIDE = Path(__file__).parents[2] / "docs/OPERATORS.md"


def test_the_operator_guide_has_every_code_with_its_meaning() -> None:
    section = GUIDE.read_text().partition("### The report")[2].partition("\n### ")[0]
    assert re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", section, re.MULTILINE) == sorted(CODES.items())


def test_the_codes_are_sorted() -> None:
    assert list(CODES) == sorted(CODES)
