"""Creates and removes temporary users: records in /run/userdb, which libnss-systemd reads.

The record format is systemd's JSON User Records, https://systemd.io/USER_RECORD/.
"""

from __future__ import annotations

import json
from pathlib import Path

from draupnir_helper import files, layout


def _records(name: str, uid: int, real_name: str) -> dict[str, dict[str, object]]:
    user = {
        "userName": name,
        "uid": uid,
        "gid": uid,
        "realName": real_name,
        "homeDirectory": "/",
        "shell": "/usr/sbin/nologin",
        "locked": True,
        "service": "io.draupnir",
    }
    group = {"groupName": name, "gid": uid, "service": "io.draupnir"}
    return {"user": user, "group": group}


def ensure(name: str, uid: int, real_name: str, directory: Path = layout.USERDB) -> None:
    """Create the user and its group, until they are removed or the machine reboots."""
    for kind, record in _records(name, uid, real_name).items():
        files.write(directory / f"{name}.{kind}", json.dumps(record) + "\n", mode=0o644)
        files.link(directory / f"{uid}.{kind}", f"{name}.{kind}")


def remove(name: str, uid: int, directory: Path = layout.USERDB) -> None:
    """Remove the user and its group; do nothing if they do not exist."""
    for kind in ("user", "group"):
        (directory / f"{uid}.{kind}").unlink(missing_ok=True)
        (directory / f"{name}.{kind}").unlink(missing_ok=True)
