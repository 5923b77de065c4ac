"""The tour of the README, line by line, and the demo, each on a new machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TOUR = re.compile(r"<!-- tour -->\n```sh\n(.*?)```", re.DOTALL)


def in_a_machine(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PROJECT / "packaging/machine", "run", *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


def test_the_tour_runs_as_it_is_printed() -> None:
    steps = TOUR.findall((PROJECT / "README.md").read_text())
    assert len(steps) == 5
    done = in_a_machine("--", "bash", "-c", "set -euo pipefail\n" + "".join(steps))
    assert "100000 | user100000@example.com" in done.stdout
    assert "Draupnir instance 1 of image 1 for upload on port" in done.stdout
    assert "Image 1 is destroyed" in done.stderr


def test_the_demo_succeeds() -> None:
    done = in_a_machine("--bare", "--", "/usr/src/draupnir/packaging/demo")
    assert "Nothing is left: no unit, no subvolume." in done.stdout
