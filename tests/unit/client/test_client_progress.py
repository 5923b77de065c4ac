"""Laws of the live progress display, seen on a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest

from .conftest import TOKEN, FakeServer, image


def working(activity: str, **progress: object) -> dict[str, object]:
    known = {"step": "extract", "activity": activity, "done_bytes": None, "total_bytes": None, "seconds": 5}
    return image(1, "finalising", progress=known | progress)


class Terminal:
    """A finalise whose stderr is a terminal of 60 columns."""

    def __init__(self, address: str) -> None:
        self.end, stderr = pty.openpty()
        fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "draupnir_client", "images", "finalise", "1"],
            env={**os.environ, "DRAUPNIR_URL": address, "DRAUPNIR_TOKEN": TOKEN, "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        os.close(stderr)
        self.seen = ""

    def read_until(self, word: str | None) -> None:
        """Read the display until it has `word`, or until the program ends."""
        while word is None or word not in self.seen:
            try:
                data = os.read(self.end, 4096)
            except OSError:
                return
            if not data:
                return
            self.seen += data.decode()

    def finish(self) -> tuple[int, str]:
        self.read_until(None)
        stdout, _ = self.process.communicate()
        os.close(self.end)
        return self.process.returncode, stdout


def test_one_line_is_rewritten_and_leaves_no_trace(address: str, server: FakeServer) -> None:
    server.images = {1: working("extracting", done_bytes=1, total_bytes=4)}
    long_name = "a very long activity that does not fit on the terminal of anybody"
    server.script = [working("extracting", done_bytes=2, total_bytes=4), working(long_name), image(1)]
    terminal = Terminal(address)
    status, stdout = terminal.finish()
    assert status == 0
    assert stdout.splitlines()[1].startswith("1   ready")
    drawn = [part.removesuffix("\x1b[K") for part in re.split(r"\r(?!\n)", terminal.seen)]
    assert drawn[1] == "Image 1  step 2/5  extracting  [#####---------------]  25% "[:59]
    assert "50%" in drawn[2]
    assert drawn[3] == f"Image 1  step 2/5  {long_name}"[:59]
    assert all(len(line) < 60 for line in drawn[1:-1])
    assert drawn[4].startswith("\x1b[K") or drawn[4].startswith("Image 1 is ready")
    assert "\n" not in "".join(drawn[:4])


@pytest.mark.parametrize("name", [signal.SIGINT])
def test_interrupting_leaves_the_work_running_and_reports_it(
    address: str, server: FakeServer, name: signal.Signals
) -> None:
    server.images = {1: working("extracting")}
    terminal = Terminal(address)
    terminal.read_until("extracting")
    terminal.process.send_signal(name)
    status, stdout = terminal.finish()
    assert (status, stdout) == (130, "")
    assert "still being finalised" in terminal.seen
    assert "draupnir-client images finalise 1" in terminal.seen
    assert {line for line in server.asked if "DELETE" in line} == set()
