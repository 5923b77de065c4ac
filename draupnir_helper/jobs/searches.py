"""Searches all files of a stopped data directory for many values in one pass, with ripgrep."""

from __future__ import annotations

import mmap
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from draupnir_helper.jobs import needles
from draupnir_helper.jobs.reports import JobError

RG = "/usr/bin/rg"
# It reads all files as bytes. Without mmap it would read a gigabyte of zeros into memory, as one line.
_OPTIONS = (
    "--no-config",
    "-uuu",
    "--text",
    "--mmap",
    "--no-messages",
    "--no-line-number",
    "--with-filename",
    "--null",
    "--only-matching",
)


class Hit(NamedTuple):
    """A value, and a file that contains it, relative to the data directory."""

    value: bytes
    path: str


def search(data: Path, directory: Path, values: Iterable[bytes]) -> list[Hit]:
    """Return the files with one of the values, which contain no end of a line or are needles.

    `directory` is for the patterns, outside of the data. Raises job_failed.
    """
    windows: dict[bytes, list[bytes]] = {}
    for value in dict.fromkeys(values):
        windows.setdefault(needles.window(value) or value, []).append(value)
    # Of values that begin alike, ripgrep reports the first in the list.
    ordered = sorted(windows, key=len, reverse=True)
    # ripgrep's -F is fast, but takes only text.
    text = [each for each in ordered if _is_text(each)]
    searches = [(("-F",), text), ((), [each for each in ordered if not _is_text(each)])]
    return [hit for options, wanted in searches if wanted for hit in _hits(data, directory, options, wanted, windows)]


def _hits(
    data: Path, directory: Path, options: Sequence[str], wanted: Sequence[bytes], windows: dict[bytes, list[bytes]]
) -> Iterator[Hit]:
    patterns = directory / "patterns"
    lines = wanted if options else [b"(?-u:" + b"".join(b"\\x%02x" % byte for byte in each) + b")" for each in wanted]
    patterns.write_bytes(b"".join(line + b"\n" for line in lines))
    matched: dict[bytes, set[bytes]] = {}
    for line in filter(None, _run((RG, *_OPTIONS, *options, "-f", str(patterns), "."), data).split(b"\n")):
        name, _, window = line.partition(b"\0")
        matched.setdefault(name, set()).add(window)
    patterns.unlink()
    for name, found in matched.items():
        path = name.removeprefix(b"./").decode(errors="surrogateescape")
        with (data / path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for window in found & windows.keys():
                yield from (Hit(value, path) for value in windows[window] if content.find(value) >= 0)


def _run(command: Sequence[str], data: Path) -> bytes:
    finished = subprocess.run(command, cwd=data, capture_output=True, check=False, env={"LC_ALL": "C"})
    if finished.returncode not in {0, 1}:
        error = finished.stderr.decode(errors="replace")
        raise JobError("job_failed", "The search of the files failed. Finalise again.", error)
    return finished.stdout


def _is_text(window: bytes) -> bool:
    try:
        window.decode()
    except UnicodeDecodeError:
        return False
    return True
