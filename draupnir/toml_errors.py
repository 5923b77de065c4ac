"""Explains errors of the configuration file with line, key, fault and advice. It is independent of the keys."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic_core import ErrorDetails


def malformed(path: Path, message: str) -> str:
    """Return the error of tomllib with the line in front."""
    at_line = re.search(r" \(at line (\d+), column \d+\)$", message)
    where = f"{path}:{at_line[1]}" if at_line else f"{path}"
    what = message[: at_line.start()] if at_line else message
    return f"{where}: this is not valid TOML: {what}; correct this line."


def explain(path: Path, text: str, error: ErrorDetails) -> str:
    """Return an error of pydantic as a sentence with the line of the key in front."""
    tables = [str(part) for part in error["loc"] if isinstance(part, str)]
    keys = error.get("ctx", {}).get("keys") or tables[-1:]
    if tables and keys == tables[-1:]:
        tables.pop()
    line = next((found for key in reversed(keys) if (found := _line_of(text, tables, key))), None)
    where = f"{path}:{line}" if line else f"{path}"
    name = " and ".join(keys)
    if error["type"] == "extra_forbidden":
        return f"{where}: {name} is an unknown key; remove it or correct its spelling."
    if error["type"] == "missing":
        return f"{where}: [{'.'.join(tables)}] has no {name}; add it."
    if "keys" in error.get("ctx", {}):
        return f"{where}: {name} {error['msg']}; correct the value or remove the line."
    reason = error["msg"].removeprefix("Input should be ").removeprefix("has to be ")
    if error["type"] == "string_pattern_mismatch":
        reason = f"a text that matches {error['ctx']['pattern']}, as `man draupnir-config.toml` describes"
    return f"{where}: {name} = {error['input']!r} has to be {reason}; correct the value or remove the line."


def _line_of(text: str, tables: list[str], key: str) -> int | None:
    """Return the line that sets `key` of the table, or the line of the table, because tomllib does not report lines."""
    opens = None
    current: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+([^\]]*)\]", line)
        if header:
            current = [part.strip(" \t\"'") for part in header[1].split(".")]
            if current == [*tables, key]:
                return number
        name = re.match(r"""\s*([A-Za-z0-9_."' -]+?)\s*=""", line)
        if name:
            dotted = current + [part.strip(" \t\"'") for part in name[1].split(".")]
            if dotted == [*tables, key]:
                return number
            if dotted == tables:
                opens = number
        elif header and current == tables:
            opens = number
    return opens
