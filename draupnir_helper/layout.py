"""Names and paths: the only module that turns ids into directories, unit names, user names and uids."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from draupnir_helper.wire import MAX_ID, JobKind

RUN = Path("/run/draupnir")
DATA_LINK = RUN / "data"
USERDB = Path("/run/userdb")
MARKER = ".draupnir-filesystem-id"

UPLOAD_USER = "upload"
DATA_GROUP = "draupnir-data"

# This is the end of the range that systemd's UIDS-GIDS document assigns to containers. For users outside, unless
# system or dynamic, journald creates a permanent file of 8 MiB each. draupnir.tmpfiles uses the first uid of both
# ranges, so that systemd-nspawn does not choose the 64K uids from there.
IMAGE_UID_BASE = 0x68000000
INSTANCE_UID_BASE = 0x6C000000
assert MAX_ID < INSTANCE_UID_BASE - IMAGE_UID_BASE
assert INSTANCE_UID_BASE + MAX_ID < 0x70000000
# The first versions had this base of instance uids. Instances whose data have such a uid keep it.
FORMER_INSTANCE_UID_BASE = 0x78000000


class Place(StrEnum):
    """The directories of the data filesystem with one subvolume for each id."""

    UPLOADS = "chroot/draupnir/image_uploads"
    SEALS = "seals"
    WORK = "work"
    IMAGES = "image_snapshots"
    INSTANCES = "instances"


TRASH = "trash"

# The places with writable subvolumes have numbers. Never change a number, because ids on the disk contain it.
_GROUP_KINDS = {Place.INSTANCES: 1, Place.UPLOADS: 2, Place.WORK: 3}
_GROUP_LEVEL = 1 << 48  # the upper sixteen bits of a quota group's id are its level

# Snapshots are created under this prefix, then renamed: a snapshot onto an existing name would nest in it.
NEW_PREFIX = ".new-"
MANIFEST_SUFFIX = ".json"
ERROR_TEXT_SUFFIX = ".error"
REPORT_SUFFIX = ".report"


def image_user(image_id: int) -> tuple[str, int]:
    """Return name and uid (equal to the gid) of the jobs of an image."""
    return f"draupnir-m{image_id}", IMAGE_UID_BASE + image_id


def instance_user(instance_id: int) -> tuple[str, int]:
    """Return name and uid (equal to the gid) of an instance."""
    return f"draupnir-i{instance_id}", INSTANCE_UID_BASE + instance_id


def former_instance_user(instance_id: int) -> tuple[str, int]:
    """Return name and uid of an instance whose data were created by one of the first versions."""
    return f"draupnir-i{instance_id}", FORMER_INSTANCE_UID_BASE + instance_id


def quota_group(place: Place, some_id: int) -> int | None:
    """Return the quota group of a subvolume and the subvolumes nested in it, or None in read-only places."""
    kind = _GROUP_KINDS.get(place)
    return None if kind is None else _GROUP_LEVEL | kind * (MAX_ID + 1) | some_id


def quota_group_owner(group: int) -> tuple[Place, int] | None:
    """Return the place and the id of one of our groups, or None for another group."""
    kind, some_id = divmod(group & ~_GROUP_LEVEL, MAX_ID + 1)
    found = next((place for place, number in _GROUP_KINDS.items() if number == kind), None)
    return (found, some_id) if found is not None and group >> 48 == 1 else None


def quota_unit(group: int) -> str:
    """Return the service that sets up quota groups, from the file with the same number."""
    return f"draupnir-quota@{group}.service"


def quota_file(group: int) -> Path:
    """Return the root-owned file with the orders for the quota unit of that number."""
    return RUN / "quotas" / str(group)


def job_unit(kind: JobKind, image_id: int) -> str:
    """Return the service of a job."""
    return f"draupnir-{kind}-{image_id}.service"


def postgres_unit(instance_id: int) -> str:
    """Return the service of an instance's Postgres."""
    return f"draupnir-instance-{instance_id}.service"


def direct_unit(instance_id: int) -> str:
    """Return the service of a direct instance; two sets of drop-ins apply to its name."""
    return f"draupnir-instance-direct-{instance_id}.service"


def promotion_unit(instance_id: int) -> str:
    """Return the service that makes an instance's role a superuser; two sets of drop-ins apply to its name."""
    return f"draupnir-instance-promotion-{instance_id}.service"


def port_socket(instance_id: int) -> str:
    """Return the socket unit of an instance's port."""
    return f"draupnir-port-{instance_id}.socket"


def port_service(instance_id: int) -> str:
    """Return the proxy service from an instance's port into its network namespace."""
    return f"draupnir-port-{instance_id}.service"


def probe(instance_id: int) -> tuple[str, str]:
    """Return the socket unit that tries to bind a port, and the service that systemd requires for it."""
    return f"draupnir-probe-{instance_id}.socket", f"draupnir-probe-{instance_id}.service"


def gate(instance_id: int) -> str:
    """Return the socket unit of the gate, which delays an instance's proxy."""
    return f"draupnir-gate@{instance_id}.socket"


def image_run_directory(image_id: int) -> Path:
    """Return the directory of root-owned files for the jobs of an image."""
    return RUN / "images" / str(image_id)


def instance_run_directory(instance_id: int) -> Path:
    """Return the directory of an instance's root-owned configuration and server key, outside of its data directory."""
    return RUN / "instances" / str(instance_id)


def extension_directory(major: int) -> Path:
    """Return the directory of root-owned control files of trusted extensions."""
    return RUN / "extensions" / str(major)


def manifest_name(some_id: int) -> str:
    """Return the name of the manifest beside a published image or an instance."""
    return f"{some_id}{MANIFEST_SUFFIX}"
