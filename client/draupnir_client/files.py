"""Writes private files of the user: directories with mode 0700, and files that are replaced atomically."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from draupnir_client.errors import ConfigError


def base_directory(variable: str, below_home: str) -> Path:
    """Return an XDG base directory: `variable` if it is an absolute path (as XDG requires), else `below_home`."""
    chosen = Path(os.environ.get(variable, ""))
    if chosen.is_absolute():
        return chosen
    try:
        return Path.home() / below_home
    except RuntimeError as error:
        raise ConfigError(f"The home directory is unknown; set HOME or {variable}.") from error


def instances_directory() -> Path:
    """Return the directory of the credentials of all instances."""
    return base_directory("XDG_CACHE_HOME", ".cache") / "draupnir" / "instances"


def make_private_directory(path: Path) -> None:
    """Create `path` with mode 0700. An existing directory must belong to this user, and gets that mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.stat()
        if found.st_uid != os.geteuid():
            raise ConfigError(f"{path} belongs to another user, who could read its files; move it away and try again.")
        if stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"Cannot make the private directory {path}: {error.strerror}; check its owner.") from error


def write_private(path: Path, content: bytes) -> None:
    """Write `content` to `path` with mode 0600, atomically: readers see the old or the new file, also after a crash."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink()
            raise
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}; check free space and permissions.") from error
