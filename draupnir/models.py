"""Images and instances as the daemon knows them: frozen values, without HTTP and without SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network


class ImageStatus(StrEnum):
    """The status of an image. The store changes it by compare-and-swap."""

    AWAITING_UPLOAD = "awaiting_upload"
    FINALISING = "finalising"
    READY = "ready"
    FAILED = "failed"
    DESTROYING = "destroying"


class FinaliseStep(StrEnum):
    """The step of a finalise. It is recorded before it is executed, so that a restarted daemon can continue."""

    SEAL = "seal"
    EXTRACT = "extract"
    FINALISE = "finalise"
    PUBLISH = "publish"
    TRIAL = "trial"


class InstanceStatus(StrEnum):
    """The intended status of an instance. The state of its units is observed, not stored.

    STOPPED: the instance wrote too much while the disk was nearly full, so port and Postgres are stopped until a
    restart. CLOSED: the owner was revoked, so port and Postgres are stopped, and the data are retained for a while.
    """

    CREATING = "creating"
    RUNNING = "running"
    STOPPED = "stopped"
    CLOSED = "closed"
    DESTROYING = "destroying"


class Purpose(StrEnum):
    """The purpose of an instance: a user, the warm pool, or the trial boot of its image."""

    USE = "use"
    POOL = "pool"
    TRIAL = "trial"


class Network(StrEnum):
    """The network of an instance: a proxy listens on its port, or Postgres itself."""

    PROXIED = "proxied"
    DIRECT = "direct"


class Condition(StrEnum):
    """The condition of an instance, from status and observation; users see it as its status."""

    CREATING = "creating"
    RUNNING = "running"
    ASLEEP = "asleep"
    FULL = "full"
    STOPPED = "stopped"
    FAILED = "failed"
    CLOSED = "closed"
    DESTROYING = "destroying"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Shape:
    """The configuration of an instance: idle timeout (seconds, 0 for never), network, ceiling, superuser.

    The warm pool compares shapes, so a shape has no fields that only the metadata use. `max_bytes` is None for the
    default, and for an instance that was created before ceilings existed.
    """

    sleep_after_s: int
    network: Network = Network.PROXIED
    max_bytes: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    superuser: bool = False


@dataclass(frozen=True, slots=True)
class Fullness:
    """Whether an instance has reached its ceiling, and whether its reserve was granted a second time since."""

    full: bool = False
    reserve_granted: bool = False


NOT_FULL = Fullness()


@dataclass(frozen=True, slots=True)
class Observation:
    """The condition of an instance, and its written bytes, None if unknown."""

    condition: Condition
    written_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a finalise: the job's activity, bytes done, bytes in total, and start time."""

    activity: str
    done_bytes: int | None = None
    total_bytes: int | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason of an image's failure: a stable code, and a sentence for people."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Image:
    """A data set; `postgres_major` is known after the extraction, `size_bytes` after the finalise.

    A list may have only the beginning of the script, with `script_truncated`. Triggers wrote to `trigger_tables` during
    the script. `superuser` and `database`, the default to connect to, are None for images of older versions.
    `canaries` are raw values; they are never shown or logged, and are empty in a list and when the image is ready.
    With `keep_residue`, the files keep values that the script removed. `proved`: a search for them found none.
    """

    id: int
    status: ImageStatus
    backed_up_at: datetime
    anonymisation_script: str
    created_at: datetime
    updated_at: datetime
    step: FinaliseStep | None = None
    progress: Progress | None = None
    failure: Failure | None = None
    postgres_major: int | None = None
    size_bytes: int | None = None
    script_truncated: bool = False
    trigger_tables: tuple[str, ...] = ()
    given_parameters: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    superuser: str | None = None
    database: str | None = None
    canaries: tuple[str, ...] = field(default=(), repr=False)
    keep_residue: bool = False
    proved: bool = False


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A row of an image's report: a stable code, the database and object if any, what was found, and what to do."""

    code: str
    database: str
    object: str
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate authority of one instance: PEM of its certificate and of its private key."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class SealedAuthority:
    """An authority in the metadata; `encrypted_key` is None until an older version's plain key is encrypted."""

    certificate: str
    encrypted_key: bytes | None


@dataclass(frozen=True, slots=True)
class Retained:
    """The state of a closed instance: seconds closed while the service ran, and whether its owner signed in again."""

    closed_s: float
    owner_is_back: bool


@dataclass(frozen=True, slots=True)
class Instance:
    """A writable copy of an image behind a port; `postgres_major` is that of its image, `retained` is set if CLOSED."""

    id: int
    image_id: int
    owner: str
    purpose: Purpose
    status: InstanceStatus
    port: int
    postgres_major: int
    shape: Shape
    image_parameters: Mapping[str, str]
    authority: SealedAuthority
    created_at: datetime
    updated_at: datetime
    fullness: Fullness = NOT_FULL
    superuser: str | None = None
    database: str | None = None
    stop_reason: str | None = None
    retained: Retained | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """Return the settings of its Postgres: those of its image, overridden by its own."""
        return {**self.image_parameters, **self.shape.parameters}


class AddressOrigin(StrEnum):
    """The origin of an allowlist entry: seen as the owner's address, or added by the owner."""

    SEEN = "seen"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class AllowedAddress:
    """An address or network on the allowlist of an instance, until it expires."""

    network: IPv4Network | IPv6Network
    origin: AddressOrigin
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    """A client's credentials for a role of an instance, issued for each request and never stored; the texts are PEM."""

    ca_certificate: str
    client_certificate: str
    client_key: str
    client_pkcs12: bytes
    role: str
