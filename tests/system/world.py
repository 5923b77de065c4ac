"""Everything that Draupnir can leave on a machine, as sets that are equal before and after a test."""

from __future__ import annotations

import time
from pathlib import Path

from tests.system.service import run

DATA = Path("/srv/draupnir")
PLACES = ("chroot/draupnir/image_uploads", "seals", "work", "image_snapshots", "instances", "trash", "quarantine")
RUN_PLACES = ("/run/draupnir/images", "/run/draupnir/instances", "/run/userdb", "/var/lib/draupnir/scripts")
FIRST_UID = 0x68000000

_PASSING = {"active", "inactive", "activating", "deactivating"}

World = dict[str, set[str]]


def observe() -> World:
    """Return the current units, subvolumes, files, ports, mounts, rows, processes and loop devices."""
    return {
        "units": units(),
        "transient": {path.name for path in Path("/run/systemd/transient").glob("draupnir-*-[0-9]*")},
        "subvolumes": {
            f"{place}/{path.name}" for place in PLACES if (DATA / place).exists() for path in (DATA / place).iterdir()
        },
        "files": {str(path) for place in RUN_PLACES if Path(place).exists() for path in Path(place).iterdir()},
        "ports": {line.split()[3] for line in run("ss", "-Hltn").stdout.splitlines()},
        # logind keeps a user's runtime directory for ten seconds after the last session, such as scp.
        "mounts": {
            point
            for line in Path("/proc/mounts").read_text().splitlines()
            if not (point := line.split()[1]).startswith("/run/user/")
        },
        "rows": rows(),
        "processes": processes(),
        # Loop devices of the host are visible, too.
        "loops": {
            line.strip()
            for line in run("losetup", "--noheadings", "--output", "BACK-FILE").stdout.splitlines()
            if line.startswith("/var/lib/draupnir/")
        },
    }


def processes() -> set[str]:
    """Return processes of instances and finalise jobs, by their users."""
    return {
        f"{status.parent.name} uid {uid}"
        for status in Path("/proc").glob("[0-9]*/status")
        if (uid := _uid(status)) >= FIRST_UID
    }


def units() -> set[str]:
    """Return names, and whether they failed, without short-lived units: proxies and the quota unit."""
    listing = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "draupnir-*[-@][0-9]*").stdout
    return {
        " ".join(word for word in line.split()[:3] if word != "loaded" and word not in _PASSING)
        for line in listing.splitlines()
        if not line.startswith("draupnir-quota@") or " failed " in line
    }


def await_quiet(within_s: float = 30) -> None:
    """Wait for the cleanup after a finalise, which happens after its answer."""
    deadline = time.monotonic() + within_s
    while passing := [path for place in ("seals", "work") for path in (DATA / place).iterdir()]:
        assert time.monotonic() < deadline, passing
        time.sleep(0.1)


def rows() -> set[str]:
    """Return ids and states of images and instances from the private metadata cluster."""
    query = "SELECT 'image', id, status FROM images UNION ALL SELECT 'instance', id, status FROM instances"
    connection = ["-h", "/run/draupnir-metadata", "-d", "draupnir"]
    done = run("runuser", "-u", "draupnir", "--", "psql", "-XAtq", *connection, "-c", query, cwd="/", ok=False)
    return set(done.stdout.split()) if done.returncode == 0 else {"metadata away"}


def differences(before: World) -> list[str]:
    """Return the difference between two worlds, or an empty text if they are equal."""
    now = observe()
    # Old trash may disappear, and so may short-lived processes of Postgres.
    before = before | {
        "subvolumes": {path for path in before["subvolumes"] if not path.startswith("trash/")},
        "processes": before["processes"] & now["processes"],
    }
    return [
        f"{kind}: {'+' if item in now[kind] else '-'} {item}"
        for kind in now
        for item in sorted(now[kind] ^ before[kind])
    ]


def await_equal(before: World, within_s: float = 30) -> None:
    """Check that the world is the same again within 30 s."""
    deadline = time.monotonic() + within_s
    while left := differences(before):
        assert time.monotonic() < deadline, "left behind:\n" + "\n".join(left)
        time.sleep(0.2)


def _uid(status: Path) -> int:
    try:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("Uid:"))
    except (FileNotFoundError, ProcessLookupError, StopIteration):
        return 0
