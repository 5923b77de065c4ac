"""Runs psql, and reports whether it tried to start a program, such as a shell; psql does not always report that."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_PENDING = re.compile(r"^ShdPnd:\s*([0-9a-f]+)$", re.MULTILINE)


def run(
    command: Sequence[str], environment: Mapping[str, str], directory: Path
) -> tuple[subprocess.CompletedProcess[str], bool]:
    """Run the command without input, discard its output, and return whether it tried to start a program, too.

    A process gets SIGCHLD at the end of each child, and of a child that could not execute its program. The command
    inherits that this signal is blocked, so the signal stays pending until the command is reaped.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        process = subprocess.Popen(
            command, env=environment, cwd=directory,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, errors="surrogateescape",
        )  # fmt: skip
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with process:
        assert process.stderr is not None
        errors = process.stderr.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        has_started = _has_pending_sigchld(process.pid)
    return subprocess.CompletedProcess(command, process.returncode, "", errors), has_started


def _has_pending_sigchld(pid: int) -> bool:
    found = _PENDING.search(Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    assert found is not None
    return bool(int(found[1], 16) & 1 << signal.SIGCHLD - 1)
