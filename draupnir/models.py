"""Images and instances as the daemon knows them: frozen values, without HTTP and without SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network


class ImageStatus(StrEnum):
    """The life of an image; transitions are compare-and-swap in the store."""

    AWAITING_UPLOAD = "awaiting_upload"
    FINALISING = "finalising"
    READY = "ready"
    FAILED = "failed"
    DESTROYING = "destroying"


class FinaliseStep(StrEnum):
    """Where a finalise stands; written before the step is taken, so that it can continue after a restart."""

    SEAL = "seal"
    EXTRACT = "extract"
    FINALISE = "finalise"
    PUBLISH = "publish"
    TRIAL = "trial"


class InstanceStatus(StrEnum):
    """The life of an instance as intended; what its units do is observed, not stored.

    STOPPED is of one that wrote too much while the disk was nearly full: port and Postgres are stopped until it is
    restarted. CLOSED is of a revoked user: likewise, and the data are retained for a while.
    """

    CREATING = "creating"
    RUNNING = "running"
    STOPPED = "stopped"
    CLOSED = "closed"
    DESTROYING = "destroying"


class Purpose(StrEnum):
    """Whom an instance is for: a person or program, the next claim, or the trial boot of its image."""

    USE = "use"
    POOL = "pool"
    TRIAL = "trial"


class Network(StrEnum):
    """How an instance is reached: through the proxy on its port, or Postgres itself on the port."""

    PROXIED = "proxied"
    DIRECT = "direct"


class Condition(StrEnum):
    """How an instance is, intent and observation taken together; what people are shown as its status."""

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
    """What the units of an instance are built from: its idle timeout (seconds, 0 for never), its network, its ceiling.

    The warm pool compares shapes; what only the metadata know of an instance is no part of it. `max_bytes` is None for
    what is usual, and of an instance that was made before there were ceilings.
    """

    sleep_after_s: int
    network: Network = Network.PROXIED
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Fullness:
    """Whether an instance has met its ceiling, and whether its reserve has been granted a second time since."""

    full: bool = False
    reserve_granted: bool = False


NOT_FULL = Fullness()


@dataclass(frozen=True, slots=True)
class Observation:
    """How an instance is, and how many bytes of what it wrote are still there; None where that is not known."""

    condition: Condition
    written_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a finalise is: what its job says it does now, bytes done of bytes in all, and since when."""

    activity: str
    done_bytes: int | None = None
    total_bytes: int | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an image failed: a stable code, and a text for people (one sentence, then the tail of the log)."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Image:
    """A data set; `size_bytes` and `postgres_major` are known once it was finalised or extracted.

    One of a list may have only the beginning of its script: then it is `script_truncated`.
    `trigger_tables` are those to which triggers wrote while its script ran.
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


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate authority of one instance: PEM of its certificate and of its private key."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class SealedAuthority:
    """An authority as the metadata have it; `encrypted_key` is None until an older version's plain key is encrypted."""

    certificate: str
    encrypted_key: bytes | None


@dataclass(frozen=True, slots=True)
class Retained:
    """Of an instance that is closed: for how many seconds of the service's running, and whether the very person it was
    closed for has signed in again.
    """

    closed_s: float
    owner_is_back: bool


@dataclass(frozen=True, slots=True)
class Instance:
    """A writable copy of an image behind a port; `postgres_major` is its image's, `retained` is there while CLOSED."""

    id: int
    image_id: int
    owner: str
    purpose: Purpose
    status: InstanceStatus
    port: int
    postgres_major: int
    shape: Shape
    authority: SealedAuthority
    created_at: datetime
    updated_at: datetime
    fullness: Fullness = NOT_FULL
    stop_reason: str | None = None
    retained: Retained | None = None


class AddressOrigin(StrEnum):
    """Why an address is admitted: its owner was seen there, or said so."""

    SEEN = "seen"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class AllowedAddress:
    """An address, or a network of them, that the port of an instance admits until it expires."""

    network: IPv4Network | IPv6Network
    origin: AddressOrigin
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client needs to sign in to an instance, issued again each time and never stored; the texts are PEM."""

    ca_certificate: str
    client_certificate: str
    client_key: str
    client_pkcs12: bytes
