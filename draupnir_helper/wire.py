"""The contract between daemon and helper: requests, replies and error codes as strict frozen values.

Imports pydantic and the standard library only; the daemon imports this module and nothing else of the package.

One request a connection: the client writes one JSON object and half-closes, the helper answers with one JSON
object and closes. Ids and small typed values cross; never a path, a unit name, an environment or a command line.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel

PROTOCOL = 1
SOCKET_PATH = "/run/draupnir-helper.sock"
MAX_REQUEST_BYTES = 2 * 1024 * 1024
MAX_REPLY_BYTES = 8 * 1024 * 1024

# Uids are an id added to a base (layout.py), so ids stay below the width of a uid block.
MAX_ID = 2**26 - 1

ImageId = Annotated[int, Field(strict=True, ge=1, le=MAX_ID)]
InstanceId = Annotated[int, Field(strict=True, ge=1, le=MAX_ID)]
Port = Annotated[int, Field(strict=True, ge=1024, le=65535)]
PostgresMajor = Annotated[int, Field(strict=True, ge=10, le=99)]
Owner = Annotated[str, Field(pattern=r"^[A-Za-z0-9._+'@-]{1,254}$")]
Pem = Annotated[
    str,
    Field(
        max_length=16 * 1024,
        pattern=r"^(-----BEGIN [A-Z ]{1,40}-----\n[A-Za-z0-9+/=\n]{1,8192}-----END [A-Z ]{1,40}-----\n)+$",
    ),
]
# Less is not enough for what Postgres writes by itself.
MIN_MAX_BYTES = 64 * 1024 * 1024
MaxBytes = Annotated[int, Field(strict=True, ge=MIN_MAX_BYTES, le=2**60)]
Script = Annotated[str, Field(max_length=1024 * 1024)]

# An instance's port admits these whatever else it does: the server itself connects to it, to wake it and to try it.
LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
MAX_ADDRESSES = 64
Addresses = Annotated[list[IPv4Network | IPv6Network], Field(max_length=MAX_ADDRESSES)]


class Wire(BaseModel):
    """Base of everything that crosses the socket: frozen, strict, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ErrorCode(StrEnum):
    """Why a request was refused or failed; stable, the daemon maps each to an error of its own."""

    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"
    WRONG_STATE = "wrong_state"
    IN_USE = "in_use"
    PORT_IN_USE = "port_in_use"
    PORT_OUT_OF_RANGE = "port_out_of_range"
    NO_ROOM = "no_room"
    STORAGE_MISSING = "storage_missing"
    POSTGRES_MISSING = "postgres_missing"
    UNIT_FAILED = "unit_failed"
    BUSY = "busy"
    INTERNAL = "internal"


# Requests. Every one is idempotent: asked twice, it finds its work done and answers the same.


class Inspect(Wire):
    """What the machine offers: storage, Postgres majors, systemd. Reply: Inspection."""

    op: Literal["inspect"] = "inspect"


class TakeInventory(Wire):
    """Everything that exists on disk and in systemd under our names. Reply: Inventory."""

    op: Literal["take_inventory"] = "take_inventory"


class CreateUpload(Wire):
    """Make the upload subvolume, owned by the upload user. Reply: Done."""

    op: Literal["create_upload"] = "create_upload"
    image_id: ImageId


class LimitUploads(Wire):
    """Let no upload grow while the disk is full (`frozen`), or each up to its ceiling again. Reply: Done."""

    op: Literal["limit_uploads"] = "limit_uploads"
    frozen: bool


class SealUpload(Wire):
    """Take a fresh read-only snapshot of the upload, in place of any earlier seal. Reply: Sealed."""

    op: Literal["seal_upload"] = "seal_upload"
    image_id: ImageId


class StartExtract(Wire):
    """Start the extract job on the seal, into a new work subvolume; joins one that runs. Reply: Job."""

    op: Literal["start_extract"] = "start_extract"
    image_id: ImageId


class StartFinalise(Wire):
    """Start the finalise job on the extracted work; joins one that runs. Reply: Job."""

    op: Literal["start_finalise"] = "start_finalise"
    image_id: ImageId
    postgres_major: PostgresMajor
    anonymisation_script: Script


class InspectJob(Wire):
    """How a job stands. Reply: Job."""

    op: Literal["inspect_job"] = "inspect_job"
    kind: JobKind
    image_id: ImageId


class StopJobs(Wire):
    """Stop both jobs of the image and forget their results. Reply: Done."""

    op: Literal["stop_jobs"] = "stop_jobs"
    image_id: ImageId


class PublishImage(Wire):
    """Snapshot the work read-only as the image; refused unless its finalise job succeeded. Reply: Published."""

    op: Literal["publish_image"] = "publish_image"
    image_id: ImageId
    postgres_major: PostgresMajor
    backed_up_at: Annotated[AwareDatetime, Field(strict=False)]
    created_at: Annotated[AwareDatetime, Field(strict=False)]


class DiscardParts(Wire):
    """Move the named parts of an image to the trash; IN_USE while a job or an instance needs them. Reply: Done.

    `image` is the published snapshot, of an attempt that failed after it was published.
    """

    op: Literal["discard_parts"] = "discard_parts"
    image_id: ImageId
    parts: Annotated[list[Literal["upload", "seal", "work", "image"]], Field(max_length=4)]


class DestroyImage(Wire):
    """Stop the image's jobs and move all it has to the trash; IN_USE while instances descend from it. Reply: Done."""

    op: Literal["destroy_image"] = "destroy_image"
    image_id: ImageId


class Ceiling(Wire):
    """How much an instance may write, and what becomes of that: the kernel's own limit stands a reserve above it.

    `read_only`: Postgres refuses to write unless it is told to. `extended`: the reserve is granted a second time.
    """

    max_bytes: MaxBytes
    read_only: bool
    extended: bool


class KeepErrorText(Wire):
    """Keep what a failed job said of its failure beside the upload, and with it; none if it said nothing. Reply: Done.

    It quotes raw data. A new seal forgets it.
    """

    op: Literal["keep_error_text"] = "keep_error_text"
    image_id: ImageId


class ReadErrorText(Wire):
    """What KeepErrorText kept. Reply: ErrorText."""

    op: Literal["read_error_text"] = "read_error_text"
    image_id: ImageId


class StartInstance(Wire):
    """Open the port, with Postgres behind it. Reply: InstanceState.

    `new`: its data are first copied from the image, owned by its own uid, unless they are there by now, and Postgres
    starts at once, for whoever is about to connect. Otherwise its data have to be there, and Postgres waits for the
    first connection. The certificates of an instance whose port is open stay.

    `addresses`: from where the port is reached, beside LOOPBACK; None is from everywhere.
    `sleep_after_s`: so long after its last connection it falls asleep; 0 for never. `direct`: Postgres itself on the
    port, in the network of the host, always awake. `ceiling`: None for one that was made before there were any.
    """

    op: Literal["start_instance"] = "start_instance"
    instance_id: InstanceId
    image_id: ImageId
    owner: Owner
    port: Port
    created_at: Annotated[AwareDatetime, Field(strict=False)]
    new: bool
    postgres_major: PostgresMajor
    loopback_only: bool
    addresses: Addresses | None
    sleep_after_s: Annotated[int, Field(ge=0, le=30 * 24 * 3600)]
    direct: bool
    ceiling: Ceiling | None
    authority_certificate: Pem
    server_certificate: Pem
    server_key: Pem


class AssignInstance(Wire):
    """Tell the manifest, and systemd if it runs, whose an instance is from now on. Reply: InstanceState."""

    op: Literal["assign_instance"] = "assign_instance"
    instance_id: InstanceId
    image_id: ImageId
    owner: Owner
    port: Port
    created_at: Annotated[AwareDatetime, Field(strict=False)]


class CloseInstance(Wire):
    """Close the port, cut what is connected through it, stop Postgres, and keep the data. Reply: Done.

    StartInstance opens it again.
    """

    op: Literal["close_instance"] = "close_instance"
    instance_id: InstanceId


class AdmitAddresses(Wire):
    """Have the port of an instance reached from these addresses from now on, as in StartInstance. Reply: InstanceState.

    Connections of others that are open hear nothing any more. A port that is not open stays as it is.
    """

    op: Literal["admit_addresses"] = "admit_addresses"
    instance_id: InstanceId
    addresses: Addresses | None


class LimitInstance(Wire):
    """Have an instance keep to this ceiling from now on, without a restart of its Postgres. Reply: InstanceState."""

    op: Literal["limit_instance"] = "limit_instance"
    instance_id: InstanceId
    ceiling: Ceiling


class ObserveAddresses(Wire):
    """From where each open port is reached. Reply: Admissions."""

    op: Literal["observe_addresses"] = "observe_addresses"


class ObserveInstances(Wire):
    """How the units of all instances stand, and the disk; quick enough to be asked each second. Reply: Observed."""

    op: Literal["observe_instances"] = "observe_instances"


class DestroyInstance(Wire):
    """Close the port, stop Postgres, move the subvolume to the trash. Reply: Done."""

    op: Literal["destroy_instance"] = "destroy_instance"
    instance_id: InstanceId


class EmptyTrash(Wire):
    """Delete what lies in the trash, nested subvolumes included. Reply: Trash."""

    op: Literal["empty_trash"] = "empty_trash"


AnyRequest = Annotated[
    Inspect
    | TakeInventory
    | CreateUpload
    | LimitUploads
    | SealUpload
    | StartExtract
    | StartFinalise
    | InspectJob
    | StopJobs
    | PublishImage
    | DiscardParts
    | DestroyImage
    | KeepErrorText
    | ReadErrorText
    | StartInstance
    | AssignInstance
    | CloseInstance
    | AdmitAddresses
    | LimitInstance
    | ObserveAddresses
    | ObserveInstances
    | DestroyInstance
    | EmptyTrash,
    Field(discriminator="op"),
]


class Request(RootModel[AnyRequest]):
    """Any one request, told apart by its `op`."""


# Replies: observed state, never an echo of the request.


class JobKind(StrEnum):
    """The two unprivileged jobs of an image."""

    EXTRACT = "extract"
    FINALISE = "finalise"


class JobState(StrEnum):
    """What systemd shows of a job's unit; ABSENT also after a reboot."""

    ABSENT = "absent"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Done(Wire):
    """The thing asked for is so."""


class Storage(Wire):
    """The btrfs filesystem that holds the data; `missing_mount_options` names what it must still be mounted with."""

    filesystem_id: str
    missing_mount_options: list[str]
    simple_quotas: bool
    room: Room
    embedded: bool


class Room(Wire):
    """How much can still be written to the data filesystem, all things considered.

    With less than `low_bytes` nothing new is made; with less than `critical_bytes` what writes most is stopped.
    `max_instance_bytes`: the highest ceiling of an instance, and that of whoever asks for none.
    """

    size_bytes: int
    free_bytes: int
    low_bytes: int
    critical_bytes: int
    max_instance_bytes: int


class Memory(Wire):
    """The machine's memory, as proc_meminfo(5) tells it: in all, and what could be given without swapping."""

    total_bytes: int
    available_bytes: int


class Inspection(Wire):
    """What the helper found; `storage` is absent when the data filesystem is not there.

    `filters_addresses`: whether systemd and the kernel can hold addresses off a port; where not, systemd says nothing.
    """

    protocol: int
    storage: Storage | None
    memory: Memory
    postgres_majors: list[int]
    systemd_version: str
    filters_addresses: bool


class Sealed(Wire):
    """The seal exists; `empty` tells that nothing had been uploaded."""

    empty: bool


class JobReport(Wire):
    """What a job says of itself through its unit's status; written by unprivileged code, so bounded and untrusted.

    `postgres_major` is set by extract, `size_bytes` (apparent bytes of the data directory) and
    `trigger_tables` (those that triggers wrote to while the script ran) by finalise, `finished` by
    either when all is done; `error_code` and `error` are set on failure. `error` is public and quotes nothing of the
    data; the whole text lies in the work directory as jobs.reports.PRIVATE_NAME.
    """

    step: Annotated[str, Field(max_length=40)] = ""
    done_bytes: Annotated[int, Field(ge=0)] | None = None
    total_bytes: Annotated[int, Field(ge=0)] | None = None
    postgres_major: PostgresMajor | None = None
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    trigger_tables: Annotated[list[Annotated[str, Field(max_length=120)]], Field(max_length=40)] = []
    finished: bool = False
    error_code: Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")] | None = None
    error: Annotated[str, Field(max_length=4000)] | None = None


class Job(Wire):
    """One job: its unit's state, its last report, and systemd's word for how a failed one ended (`oom-kill`, …)."""

    kind: JobKind
    image_id: int
    state: JobState
    report: JobReport
    result: str


class Published(Wire):
    """The published snapshot and its btrfs uuid."""

    uuid: str


class ErrorText(Wire):
    """All that was said of why an image failed, at most 1 MiB; None if nothing is kept. Untrusted, and raw."""

    text: str | None


class InstanceState(Wire):
    """The units of one instance: whether its port listens, and systemd's ActiveState of its Postgres."""

    instance_id: int
    listening: bool
    postgres: str


class Admission(Wire):
    """From where one open port is reached, LOOPBACK among it; None is from everywhere."""

    instance_id: int
    addresses: list[IPv4Network | IPv6Network] | None


class Admissions(Wire):
    """All open ports."""

    ports: list[Admission]


class ImageFound(Wire):
    """A published image on disk."""

    image_id: int
    uuid: str
    read_only: bool


class Written(Wire):
    """How many bytes an instance has written that are still there."""

    instance_id: int
    size_bytes: int


class Observed(Wire):
    """The units of all instances that have any, what all have written, and the room; no more than is known."""

    instance_units: list[InstanceState]
    written: list[Written]
    room: Room | None


class Inventory(Wire):
    """What exists: ids of subvolumes by place, unit states, and entries whose names are not ours to explain.

    `undeletable`: entries of the trash, each with the reason why it could not be deleted when that was last tried.
    """

    uploads: list[int]
    seals: list[int]
    work: list[int]
    images: list[ImageFound]
    instances: list[int]
    instance_units: list[InstanceState]
    jobs: list[Job]
    trash: int
    undeletable: list[str]
    idle_quota_groups: int
    unknown: list[str]


class Trash(Wire):
    """How many entries are left in the trash."""

    left: int


AnyReply = (
    Done | Inspection | Sealed | Job | Published | ErrorText | InstanceState | Observed | Admissions | Inventory | Trash
)


class Refusal(Wire):
    """Why it was not done: a stable code and a sentence for people."""

    code: ErrorCode
    detail: str


class Answer(Wire):
    """What comes back on the socket: exactly one of the two is set."""

    reply: dict[str, object] | None = None
    refusal: Refusal | None = None


InspectJob.model_rebuild()
Request.model_rebuild()
