"""Prints data to stdout as tables or JSON, and messages to stderr; escapes characters that control a terminal."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence

import click

# These are control, format (such as bidirectional overrides), surrogate, private use, and line separators.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})

NEVER = "never"
UNITS_S = {"d": 24 * 3600, "h": 3600, "m": 60, "s": 1}


def clean(text: str, *, keep_lines: bool = False) -> str:
    """Escape characters of untrusted text that could control a terminal. Newlines stay if `keep_lines`."""

    def one(character: str) -> str:
        if character == "\n" and keep_lines:
            return character
        if unicodedata.category(character) in _UNPRINTABLE:
            return " " if character == "\t" else character.encode("unicode_escape").decode("ascii")
        return character

    return "".join(map(one, text))


def say(message: str) -> None:
    """Print a message to stderr."""
    click.echo(clean(message, keep_lines=True), err=True)


def print_json(value: object) -> None:
    """Print JSON for programs. Non-ASCII characters are escaped, so it is safe on any terminal."""
    click.echo(json.dumps(value, indent=2))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headers, each column as wide as its widest cell."""
    cells = [list(headers), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print a name and a value on each line. Indent the lines of a multi-line value below its name."""
    width = max(len(name) for name, value in fields if "\n" not in value)
    for name, value in fields:
        if "\n" in value:
            click.echo(f"{name}:")
            for line in value.rstrip("\n").split("\n"):
                click.echo(f"    {clean(line)}".rstrip())
        else:
            click.echo(f"{name}:".ljust(width + 2) + clean(value))


def format_size(size_bytes: int | None) -> str:
    """Format a number of bytes for people, in powers of 1000. None is a dash."""
    if size_bytes is None:
        return "-"
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def format_wait(seconds: int | None) -> str:
    """Format a duration in the syntax of the command line, such as 90s or never. None is a dash."""
    if seconds is None:
        return "-"
    if seconds == 0:
        return NEVER
    unit = next(unit for unit, unit_s in UNITS_S.items() if seconds % unit_s == 0)
    return f"{seconds // UNITS_S[unit]}{unit}"


def format_duration(seconds: float) -> str:
    """Format a duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
