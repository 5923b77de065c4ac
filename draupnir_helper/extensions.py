"""Control files of extensions with `trusted = true`, which instances see in place of those of Debian's packages.

Postgres runs the script of a trusted extension as the bootstrap superuser. The operator lists them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from draupnir_helper import files, layout

SHARE = Path("/usr/share/postgresql")
_TRUSTED = re.compile(r"^\s*trusted\s*=.*$\n?", re.MULTILINE)
# systemd's BindReadOnlyPaths= takes source, destination, whether a missing source is ignored, and flags of mount(2).
Bind = tuple[str, str, bool, int]


def bound(major: int, names: Sequence[str]) -> list[Bind]:
    """Write control files for those of the extensions that are installed, and return their bind mounts."""
    found = [path for name in names if (path := SHARE / str(major) / "extension" / f"{name}.control").is_file()]
    if not found:
        return []
    directory = layout.extension_directory(major)
    files.make_directory(directory.parent, mode=0o755)
    files.make_directory(directory, mode=0o755)
    for path in found:
        # The file is written each time, because an upgrade of a package may change it.
        files.write(directory / path.name, trusted(path.read_text(encoding="utf-8")), mode=0o644)
    return [(str(directory / path.name), str(path), False, 0) for path in found]


def trusted(control: str) -> str:
    """Return the text of a control file with `trusted = true`."""
    return f"{_TRUSTED.sub('', control).rstrip()}\ntrusted = true\n".lstrip()
