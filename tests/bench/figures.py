"""A figure and its comparison, as series of seconds or bytes, and the table they make."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

SCALES: dict[str, tuple[float, str]] = {"s": (1000, "ms"), "MB": (1, "MB"), "kB": (1, "kB"), "tps": (1, "tps")}


@dataclass
class Figure:
    """One line of the table: our series, the comparison, and the bound of the ratio of medians."""

    name: str
    unit: str
    ours: list[float]
    beside: list[float] = field(default_factory=list)
    beside_name: str = ""
    bound: float | None = None  # of the ratio where there is a comparison, of the median where there is none

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ours) / statistics.median(self.beside) if self.beside else None

    @property
    def reached(self) -> bool | None:
        if self.bound is None:
            return None
        return (self.ratio if self.ratio is not None else statistics.median(self.ours)) <= self.bound

    @property
    def bound_text(self) -> str:
        """Format a ratio or a value."""
        if self.bound is None:
            return ""
        scale, shown = SCALES[self.unit]
        return f"≤ {self.bound:g} x" if self.beside else f"≤ {self.bound * scale:g} {shown}"

    def document(self) -> dict[str, Any]:
        """Return the JSON object: every measured value, in `unit`, and the results."""
        return asdict(self) | {"ratio": self.ratio, "reached": self.reached}


def spread(series: list[float], unit: str) -> str:
    """Median, and the least and the greatest."""
    if not series:
        return "-"
    scale, shown = SCALES[unit]
    low, middle, high = (value * scale for value in (min(series), statistics.median(series), max(series)))
    digits = 1 if middle < 100 else 0
    return f"{middle:.{digits}f} {shown} ({low:.{digits}f}-{high:.{digits}f})"


def table(figures: list[Figure]) -> str:
    """Return the figures as aligned text."""
    head = ("measure", "ours", "beside", "", "ratio", "must reach", "")
    rows = [head]
    for figure in figures:
        ratio = f"{figure.ratio:.2f}" if figure.ratio is not None else ""
        bound = figure.bound_text
        mark = {True: "yes", False: "NO", None: ""}[figure.reached]
        beside = spread(figure.beside, figure.unit)
        rows.append((figure.name, spread(figure.ours, figure.unit), beside, figure.beside_name, ratio, bound, mark))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def in_turn(times: int, *measures: Callable[[], float], before: Callable[[], None] | None = None) -> list[list[float]]:
    """Run each measure several times, A B A B …, so that a slower machine affects all of them.

    `before` runs before each, and is not measured.
    """
    series: list[list[float]] = [[] for _ in measures]
    for _ in range(times):
        for one, measure in zip(series, measures, strict=True):
            if before is not None:
                before()
            one.append(measure())
    return series
