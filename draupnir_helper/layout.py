"""Where things are: the only module that turns ids into directories, unit names, user names and uids."""

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

# The end of the range that systemd's UIDS-GIDS document gives to containers. Of other users that are neither the
# system's nor dynamic, journald makes a file of 8 MiB each, which stays. draupnir.tmpfiles takes the first uid of both
# ranges, by which systemd-nspawn sees that the 64K from there are not free.
IMAGE_UID_BASE = 0x68000000
INSTANCE_UID_BASE = 0x6C000000
assert MAX_ID < INSTANCE_UID_BASE - IMAGE_UID_BASE
assert INSTANCE_UID_BASE + MAX_ID < 0x70000000
# Where the uids of instances began in the first versions; instances that own data by such a uid keep it.
FORMER_INSTANCE_UID_BASE = 0x78000000


class Place(StrEnum):
    """The directories of the data filesystem that hold one subvolume per id."""

    UPLOADS = "chroot/draupnir/image_uploads"
    SEALS = "seals"
    WORK = "work"
    IMAGES = "image_snapshots"
    INSTANCES = "instances"


TRASH = "trash"

# The places whose subvolumes are written to, each with the number of its kind; never changed, for it is on the disk.
_GROUP_KINDS = {Place.INSTANCES: 1, Place.UPLOADS: 2, Place.WORK: 3}
_GROUP_LEVEL = 1 << 48  # the level of a quota group stands in the upper sixteen bits of its id

# Snapshots are made under this prefix and renamed: `btrfs subvolume snapshot` onto an existing name nests silently.
NEW_PREFIX = ".new-"
MANIFEST_SUFFIX = ".json"
ERROR_TEXT_SUFFIX = ".error"


def image_user(image_id: int) -> tuple[str, int]:
    """Name and uid (equal to the gid) of the jobs of an image."""
    return f"draupnir-m{image_id}", IMAGE_UID_BASE + image_id


def instance_user(instance_id: int) -> tuple[str, int]:
    """Name and uid (equal to the gid) of an instance."""
    return f"draupnir-i{instance_id}", INSTANCE_UID_BASE + instance_id


def former_instance_user(instance_id: int) -> tuple[str, int]:
    """Name and uid of an instance whose data were made by one of the first versions."""
    return f"draupnir-i{instance_id}", FORMER_INSTANCE_UID_BASE + instance_id


def quota_group(place: Place, some_id: int) -> int | None:
    """The quota group of a subvolume and of what is nested in it; None in places where nothing is written."""
    kind = _GROUP_KINDS.get(place)
    return None if kind is None else _GROUP_LEVEL | kind * (MAX_ID + 1) | some_id


def quota_group_owner(group: int) -> tuple[Place, int] | None:
    """Whose group that is, if it is one of ours."""
    kind, some_id = divmod(group & ~_GROUP_LEVEL, MAX_ID + 1)
    found = next((place for place, number in _GROUP_KINDS.items() if number == kind), None)
    return (found, some_id) if found is not None and group >> 48 == 1 else None


def quota_unit(group: int) -> str:
    """The service that sets quota groups up, as the file of the same number says."""
    return f"draupnir-quota@{group}.service"


def quota_file(group: int) -> Path:
    """The root-owned file that tells the quota unit of that number what to do."""
    return RUN / "quotas" / str(group)


def job_unit(kind: JobKind, image_id: int) -> str:
    """The service of a job."""
    return f"draupnir-{kind}-{image_id}.service"


def postgres_unit(instance_id: int) -> str:
    """The service of an instance's Postgres."""
    return f"draupnir-instance-{instance_id}.service"


def direct_unit(instance_id: int) -> str:
    """The service of an instance whose Postgres has the port itself; two sets of drop-ins apply to the name."""
    return f"draupnir-instance-direct-{instance_id}.service"


def port_socket(instance_id: int) -> str:
    """The socket that owns an instance's port."""
    return f"draupnir-port-{instance_id}.socket"


def port_service(instance_id: int) -> str:
    """The proxy from an instance's port into its network namespace."""
    return f"draupnir-port-{instance_id}.service"


def probe(instance_id: int) -> tuple[str, str]:
    """The socket unit that tries whether a port can be had, and the service that it has to have."""
    return f"draupnir-probe-{instance_id}.socket", f"draupnir-probe-{instance_id}.service"


def gate(instance_id: int) -> str:
    """The socket unit that lets an instance's proxy begin."""
    return f"draupnir-gate@{instance_id}.socket"


def image_run_directory(image_id: int) -> Path:
    """Root-owned files for the jobs of an image."""
    return RUN / "images" / str(image_id)


def instance_run_directory(instance_id: int) -> Path:
    """Root-owned configuration and server key of an instance; never inside its data directory."""
    return RUN / "instances" / str(instance_id)


def manifest_name(some_id: int) -> str:
    """The file beside a published image or an instance that says what it is, for the day the metadata is lost."""
    return f"{some_id}{MANIFEST_SUFFIX}"


def error_text_name(image_id: int) -> str:
    """The file beside an upload that holds all that was said of why the image failed; it quotes raw data."""
    return f"{image_id}{ERROR_TEXT_SUFFIX}"
