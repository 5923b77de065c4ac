"""The tour of the README runs, line by line as it is printed, on a machine that has just been installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TOUR = re.compile(r"<!-- tour -->\n```sh\n(.*?)```", re.DOTALL)


def test_the_tour_runs_as_it_is_printed() -> None:
    steps = TOUR.findall((PROJECT / "README.md").read_text())
    assert len(steps) == 5
    script = "set -euo pipefail\n" + "".join(steps)
    done = subprocess.run(
        [PROJECT / "packaging/machine", "run", "--", "bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "100000 | user100000@example.com" in done.stdout
    assert "Draupnir instance 1 of image 1 for upload on port" in done.stdout
    assert "Image 1 is destroyed" in done.stderr
