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
# Of systemd's BindReadOnlyPaths=: source, destination, whether a missing source is ignored, flags of mount(2).
Bind = tuple[str, str, bool, int]


def bound(major: int, names: Sequence[str]) -> list[Bind]:
    """Write the control files of the installed ones among these extensions, and return how they are bound."""
    found = [path for name in names if (path := SHARE / str(major) / "extension" / f"{name}.control").is_file()]
    if not found:
        return []
    directory = layout.extension_directory(major)
    files.make_directory(directory.parent, mode=0o755)
    files.make_directory(directory, mode=0o755)
    for path in found:
        # Each time, because an upgrade of a package may change them.
        files.write(directory / path.name, trusted(path.read_text(encoding="utf-8")), mode=0o644)
    return [(str(directory / path.name), str(path), False, 0) for path in found]


def trusted(control: str) -> str:
    """Return the text of a control file with `trusted = true`."""
    return f"{_TRUSTED.sub('', control).rstrip()}\ntrusted = true\n".lstrip()
