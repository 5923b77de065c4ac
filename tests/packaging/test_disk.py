"""The operator's own data disk: used without changes, never formatted, and retained by a purge."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.service import run

DIST = Path(__file__).parents[2] / "dist"
CONFIGURATION = Path("/etc/draupnir/config.toml")
DATA = Path("/srv/draupnir")
UNITS = ("draupnir-helper.socket", "draupnir-helper", "draupnir.socket", "draupnir")
APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "--quiet")

pytestmark = pytest.mark.skipif(
    not Path("/usr/lib/systemd/system/draupnir.service").exists(), reason="the packages are not installed here"
)


def unmount() -> None:
    run("systemctl", "stop", *UNITS, "srv-draupnir.mount", ok=False)
    assert run("findmnt", DATA, ok=False).stdout == ""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Provide the backing file of the device."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(512 * 1024 * 1024)
    return path


@pytest.fixture
def device(disk: Path) -> Iterator[str]:
    """Provide a configured, unused block device; restore the embedded disk afterwards."""
    before = CONFIGURATION.read_text()
    name = run("losetup", "--find", "--show", disk).stdout.strip()
    unmount()
    CONFIGURATION.write_text(f'data_device = "{name}"\n{before}')
    yield name
    unmount()
    run("losetup", "--detach", name)
    if CONFIGURATION.exists():
        CONFIGURATION.write_text(before)
    run(*APT, "install", *sorted(DIST.glob("*.deb")))
    run("systemctl", "restart", "draupnir-setup")
    run("systemctl", "start", *UNITS)
    run("draupnir", "doctor")


def test_a_device_without_btrfs_is_refused_with_advice_and_stays_unchanged(disk: Path, device: str) -> None:
    Path(device).write_bytes(b"somebody's")
    os.sync()
    blocks = disk.stat().st_blocks

    assert run("systemctl", "restart", "draupnir-setup", ok=False).returncode != 0

    said = run("journalctl", "--unit=draupnir-setup", "--output=cat", "--lines=20").stdout
    assert f"run mkfs.btrfs -O squota {device}\n" in said
    os.sync()
    with disk.open("rb") as file:
        assert file.read(10) == b"somebody's"
    assert disk.stat().st_blocks == blocks


def test_a_mounted_disk_is_used_and_a_purge_reports_and_keeps_it(device: str) -> None:
    # Mounted by hand, because a container has no udev, which systemd needs to mount a device.
    run("mkfs.btrfs", "--quiet", "-O", "squota", device)
    run("mount", "-o", "nodev,noexec,nosuid,user_subvol_rm_allowed", device, DATA)
    run("systemctl", "restart", "draupnir-setup")
    run("systemctl", "start", *UNITS)
    run("draupnir", "doctor")
    kept = DATA / "image_snapshots/kept"
    kept.write_text("a database")

    said = run(*APT, "purge", "draupnir").stdout

    assert run("findmnt", "--noheadings", "--output=SOURCE", DATA).stdout.strip() == device
    assert kept.read_text() == "a database"
    assert f"images and instances are retained in {DATA}; to delete them for good:" in said
