"""Shows the progress of a finalise on stderr: one live line on a terminal, else a line for each change."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from draupnir_client.models import Image, Progress
from draupnir_client.output import clean, format_duration, format_size, say

STEPS = ("seal", "extract", "finalise", "publish", "trial")
BAR_WIDTH = 20
REMINDER_S = 30.0


def describe(image: Image, elapsed_s: float) -> str:
    """Return one line: image, step, activity, share done, and duration."""
    progress = image.progress or Progress("", "", None, None, None)
    parts = [f"Image {image.id}"]
    if progress.step in STEPS:
        parts.append(f"step {STEPS.index(progress.step) + 1}/{len(STEPS)}")
    parts.append(clean(progress.activity or progress.step or image.status))
    done = _done(progress)
    if done:
        parts.append(done)
    # Prefer the server's duration, because the work may have started before this command.
    parts.append(format_duration(elapsed_s if progress.seconds is None else progress.seconds))
    return "  ".join(parts)


def _done(progress: Progress) -> str:
    if progress.done_bytes is None:
        return ""
    if not progress.total_bytes:
        return format_size(progress.done_bytes)
    share = min(progress.done_bytes / progress.total_bytes, 1.0)
    bar = ("#" * int(share * BAR_WIDTH)).ljust(BAR_WIDTH, "-")
    return f"[{bar}] {share:4.0%} of {format_size(progress.total_bytes)}"


class Display:
    """The progress display. `close` leaves the terminal on an empty line."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._live = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._now = now
        self._started_s = now()
        self._said: object = None
        self._said_at_s = 0.0

    def show(self, image: Image) -> None:
        """Rewrite the live line. Without a terminal, print a line for each new activity, and every half minute."""
        what = (image.progress.step, image.progress.activity) if image.progress else ()
        self._tell(what, describe(image, self._now() - self._started_s))

    def wait_for_server(self) -> None:
        """Show that the server does not answer."""
        waited = format_duration(self._now() - self._started_s)
        self._tell("away", f"The server does not answer; waiting for it  {waited}")

    def close(self) -> None:
        """Clear the live line."""
        if self._live:
            self._rewrite("")

    def _tell(self, what: object, line: str) -> None:
        if self._live:
            self._rewrite(line)
        elif what != self._said or self._now() - self._said_at_s >= REMINDER_S:
            self._said, self._said_at_s = what, self._now()
            say(line)

    def _rewrite(self, line: str) -> None:
        try:
            width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        except OSError:
            width = 80
        # The last column stays free, because terminals wrap when it is written.
        sys.stderr.write(f"\r{line[: width - 1]}\x1b[K")
        sys.stderr.flush()
