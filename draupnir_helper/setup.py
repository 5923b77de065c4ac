"""Prepares the machine as root before anything else starts: secrets, data filesystem, directories.

draupnir-setup.service runs it at each boot and after installation; every step is idempotent. Only this program may
mount and format. Its only input is the configuration file.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from draupnir_helper import btrfs, files, layout, settings
from draupnir_helper.settings import Settings
from draupnir_helper.storage import EMBEDDED_DISK, MOUNT_OPTIONS

SECRET = Path("/etc/draupnir/shared_secret")
KEY = Path("/etc/draupnir/refresh_token_key")
# A purge leaves the metadata, and moves the key here, beside them.
KEPT_KEY = Path("/var/lib/draupnir/refresh_token_key")
KEY_BYTES = 32
_SMALLEST_DISK_BYTES = 512 * 1024 * 1024
# btrfs has its magic number at this offset, see btrfs(5).
_MAGIC_OFFSET, _MAGIC = 0x10040, b"_BHRfS_M"


class SetupError(Exception):
    """A fault that the operator has to fix, with a one-sentence message."""


def main() -> None:
    """Prepare everything, or print the reason in one sentence and exit 1."""
    os.umask(0o077)
    try:
        loaded = settings.load()
        make_secret()
        make_key()
        data_path = Path(loaded.data_path)
        prepare_filesystem(data_path, loaded)
        prepare_directories(data_path)
        files.link(layout.DATA_LINK, str(data_path))
    except (SetupError, ValueError, OSError) as error:
        sys.exit(f"draupnir-setup: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"draupnir-setup: {' '.join(error.cmd)} failed: {error.stderr.strip()}")


def make_secret(path: Path = SECRET) -> None:
    """Create a random shared secret that the daemon can read. Never change an existing one."""
    if not path.exists():
        files.write(path, secrets.token_urlsafe(32) + "\n", mode=0o640, gid=grp.getgrnam("draupnir").gr_gid)


def make_key(path: Path = KEY, kept: Path = KEPT_KEY) -> None:
    """Create the key that encrypts secrets in the metadata, readable only by root. Never change an existing one.

    A key that a purge retained is restored, because the retained metadata need it.
    """
    if path.exists():
        return
    if kept.exists():
        files.write(path, kept.read_bytes(), mode=0o600)
        kept.unlink()
    else:
        files.write(path, secrets.token_bytes(KEY_BYTES), mode=0o600)


def prepare_filesystem(data_path: Path, loaded: Settings) -> None:
    """Mount btrfs at `data_path`, from the configured device or the embedded disk, unless the operator has done it.

    Never format a device, because its content belongs to the operator.
    """
    data_path.mkdir(mode=0o711, parents=True, exist_ok=True)
    if _filesystem_id(data_path) is not None:
        return
    if any(data_path.iterdir()):
        raise SetupError(
            f"{data_path} is not on btrfs and is not empty; mount a btrfs filesystem there, or move its content away"
        )
    if loaded.data_device is None and not EMBEDDED_DISK.exists():
        _make_embedded_disk(_disk_size_bytes(loaded))
    if loaded.data_device is not None:
        _refuse_unformatted(loaded.data_device)
    source = loaded.data_device or str(EMBEDDED_DISK)
    options = ",".join(("noatime", *MOUNT_OPTIONS))
    # systemd unmounts a mount unit in order; with After= it is unmounted last.
    _run(
        "systemd-mount", "--quiet", "--type=btrfs", f"--options={options}", "--property=Before=draupnir-setup.service",
        source, str(data_path),
    )  # fmt: skip
    if _filesystem_id(data_path) is None:
        raise SetupError(f"{data_path} is still not btrfs after {source} was mounted there; see `findmnt {data_path}`")


def prepare_directories(data_path: Path) -> None:
    """Create the places for subvolumes, all owned by root, and the marker that identifies this filesystem."""
    identity = _filesystem_id(data_path)
    assert identity is not None
    marker = data_path / layout.MARKER
    if marker.exists() and marker.read_text(encoding="ascii").strip() != identity:
        raise SetupError(
            f"{data_path} has another filesystem than {marker} records; if that file was copied here, remove it"
        )
    for directory in (".", "chroot", "chroot/draupnir", *layout.Place, layout.TRASH):
        path = data_path / directory
        path.mkdir(mode=0o711, exist_ok=True)
        os.chown(path, 0, 0)
        path.chmod(0o711)
    # An sftp client can make uploaded files world-readable; this directory still restricts access to the upload user.
    os.chown(data_path / "chroot", 0, pwd.getpwnam(layout.UPLOAD_USER).pw_gid)
    (data_path / "chroot").chmod(0o750)
    if not marker.exists():
        files.write(marker, identity + "\n", mode=0o644)


def _make_embedded_disk(size_bytes: int) -> None:
    new = EMBEDDED_DISK.with_suffix(".new")
    with new.open("wb") as file:
        file.truncate(size_bytes)
    _run("mkfs.btrfs", "--quiet", "--force", "--features", "squota", "--label", "draupnir", str(new))
    new.rename(EMBEDDED_DISK)


def _refuse_unformatted(device: str) -> None:
    """Raise SetupError if a device has no btrfs, because the message of `mount` does not help. Ignore read errors."""
    with contextlib.suppress(OSError), Path(device).open("rb") as file:
        file.seek(_MAGIC_OFFSET)
        if file.read(len(_MAGIC)) != _MAGIC:
            raise SetupError(
                f"{device} has no btrfs filesystem, and Draupnir never formats a data_device; if nothing on it is"
                f" needed, run mkfs.btrfs -O squota {device}"
            )


def _disk_size_bytes(loaded: Settings) -> int:
    free_bytes = shutil.disk_usage(EMBEDDED_DISK.parent).free
    if loaded.data_disk_size is None:
        size_bytes = free_bytes * 8 // 10
    else:
        size_bytes = settings.bytes_of(loaded.data_disk_size)
    if size_bytes < _SMALLEST_DISK_BYTES:
        raise SetupError(
            f"{EMBEDDED_DISK.parent} has no space for a data disk; free some, or set data_path to a btrfs mount"
        )
    return size_bytes


def _filesystem_id(path: Path) -> str | None:
    """Return the id of the btrfs filesystem of the path, or None for another filesystem."""
    with btrfs.directory(path) as descriptor:
        try:
            return btrfs.filesystem_id(descriptor)
        except OSError:
            return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600)


if __name__ == "__main__":
    main()
