"""What root prepares before anything else starts: the secrets, the data filesystem, its directories.

Run by draupnir-setup.service at each boot and after installation; every step finds its work done the second time.
It is the only part that may mount and format, and it takes nothing from anybody but the configuration file.
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
# Where a purge puts the key, beside the metadata that it leaves.
KEPT_KEY = Path("/var/lib/draupnir/refresh_token_key")
KEY_BYTES = 32
_SMALLEST_DISK_BYTES = 512 * 1024 * 1024
# Where a btrfs filesystem says that it is one, see btrfs(5).
_MAGIC_OFFSET, _MAGIC = 0x10040, b"_BHRfS_M"


class SetupError(Exception):
    """A fault that the operator has to fix; the message is one sentence."""


def main() -> None:
    """Prepare everything, or say in one sentence why not and exit 1."""
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
    """A random shared secret, readable by the daemon; one that exists is never touched."""
    if not path.exists():
        files.write(path, secrets.token_urlsafe(32) + "\n", mode=0o640, gid=grp.getgrnam("draupnir").gr_gid)


def make_key(path: Path = KEY, kept: Path = KEPT_KEY) -> None:
    """The key that encrypts secrets in the metadata; root alone reads it, and one that exists is never touched.

    One that a purge has kept comes back, or the metadata that were kept with it would be of no use.
    """
    if path.exists():
        return
    if kept.exists():
        files.write(path, kept.read_bytes(), mode=0o600)
        kept.unlink()
    else:
        files.write(path, secrets.token_bytes(KEY_BYTES), mode=0o600)


def prepare_filesystem(data_path: Path, loaded: Settings) -> None:
    """See to it that `data_path` is btrfs: mounted by the operator, or by us from their device or the embedded disk.

    A device is never formatted here: what is on it is the operator's.
    """
    data_path.mkdir(mode=0o711, parents=True, exist_ok=True)
    if _filesystem_id(data_path) is not None:
        return
    if any(data_path.iterdir()):
        raise SetupError(f"{data_path} is not on btrfs and is not empty; mount a btrfs filesystem there, or empty it")
    if loaded.data_device is None and not EMBEDDED_DISK.exists():
        _make_embedded_disk(_disk_size_bytes(loaded))
    if loaded.data_device is not None:
        _refuse_unformatted(loaded.data_device)
    source = loaded.data_device or str(EMBEDDED_DISK)
    options = ",".join(("noatime", *MOUNT_OPTIONS))
    # A mount unit, so that systemd unmounts it in order; After= there means that it goes last.
    _run(
        "systemd-mount", "--quiet", "--type=btrfs", f"--options={options}", "--property=Before=draupnir-setup.service",
        source, str(data_path),
    )  # fmt: skip
    if _filesystem_id(data_path) is None:
        raise SetupError(f"{data_path} is still not btrfs after mounting {source} there")


def prepare_directories(data_path: Path) -> None:
    """The places for subvolumes, all owned by root, and the marker that tells this filesystem from another."""
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
    # What the upload user opens to everybody, as an sftp client may ask, is open to nobody but them all the same.
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
    """Of a device without btrfs `mount` says nothing that helps; one that cannot be read yet is left to it."""
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
    """The btrfs filesystem that the path lies on, or None where it is another kind."""
    with btrfs.directory(path) as descriptor:
        try:
            return btrfs.filesystem_id(descriptor)
        except OSError:
            return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600)


if __name__ == "__main__":
    main()
