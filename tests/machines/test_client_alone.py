"""The client without its Debian package: pipx installs its wheel on the oldest and on the newest Python it supports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

# Installs the wheel for a separate user, then runs first commands; Debian's packages are not importable.
USE = """
set -euo pipefail
export PIPX_HOME="$HOME/pipx" PIPX_BIN_DIR="$HOME/bin" PATH="$HOME/bin:$PATH"
pipx install "$1"
draupnir-client --version
draupnir-client help
_DRAUPNIR_CLIENT_COMPLETE=bash_source draupnir-client
COMP_WORDS='draupnir-client inst' COMP_CWORD=1 _DRAUPNIR_CLIENT_COMPLETE=bash_complete draupnir-client
"""


@pytest.fixture(scope="module")
def wheel() -> Path:
    subprocess.run([PROJECT / "packaging/client"], check=True, stdout=subprocess.DEVNULL)
    (found,) = (PROJECT / "dist").glob("draupnir_client-*.whl")
    return found


def assert_useful(output: str) -> None:
    assert "draupnir-client 1." in output
    assert "Commands:" in output
    assert "_draupnir_client_completion" in output
    assert "plain,instances" in output


def test_pipx_installs_the_client_where_the_checks_run(wheel: Path, tmp_path: Path) -> None:
    assert sys.version_info >= (3, 11)
    subprocess.run([PROJECT / "packaging/prepare", "pipx"], check=True)
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-c", USE, "use", wheel], capture_output=True, text=True, env=home, check=False)
    assert done.returncode == 0, done.stderr
    assert_useful(done.stdout)


def test_pipx_installs_the_client_on_a_machine_without_our_packages(wheel: Path) -> None:
    # A machine has no network, so the dependencies are provided as files.
    wheels = PROJECT / "dist/wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options: list[str | Path] = ["--python-version=3.13", "--only-binary=:all:", "--dest", wheels]
    subprocess.run([*pip, *options, wheel, "setuptools", "pip"], check=True)
    script = f"export PIP_NO_INDEX=1 PIP_FIND_LINKS=/usr/src/draupnir/dist/wheels\n{USE}"
    inside = f"/usr/src/draupnir/dist/{wheel.name}"
    command: list[str | Path] = [
        PROJECT / "packaging/machine",
        "run",
        "--bare",
        "--",
        "bash",
        "-c",
        script,
        "use",
        inside,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert_useful(done.stdout)
