"""The requests about instances: their data, their ports and their limits."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from draupnir_helper.wire.models import Done, ImageId, InstanceId, PostgresMajor, Request, Wire

Port = Annotated[int, Field(strict=True, ge=1024, le=65535)]
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
# An instance's port admits these whatever else it does: the server itself connects to it, to wake it and to try it.
LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
MAX_ADDRESSES = 64
Addresses = Annotated[list[IPv4Network | IPv6Network], Field(max_length=MAX_ADDRESSES)]


class Ceiling(Wire):
    """How much an instance may write, and what becomes of that: the kernel's own limit stands a reserve above it.

    `read_only`: Postgres refuses to write unless it is told to. `extended`: the reserve is granted a second time.
    """

    max_bytes: MaxBytes
    read_only: bool
    extended: bool


class InstanceState(Wire):
    """The units of one instance: whether its port listens, and systemd's ActiveState of its Postgres."""

    instance_id: int
    listening: bool
    postgres: str


class StartInstance(Request[InstanceState]):
    """Open the port, with Postgres behind it.

    `new`: its data are first copied from the image, owned by its own uid, unless they are there by now, and Postgres
    starts at once, for whoever is about to connect. Otherwise its data have to be there, and Postgres waits for the
    first connection. The certificates of an instance whose port is open stay.

    `addresses`: from where the port is reached, beside LOOPBACK; None is from everywhere.
    `sleep_after_s`: so long after its last connection it falls asleep; 0 for never. `direct`: Postgres itself on the
    port, in the network of the host, always awake. `ceiling`: None for one that was made before there were any.
    """

    deadline_s: ClassVar[float] = 180
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


class AssignInstance(Request[InstanceState]):
    """Tell the manifest, and systemd if it runs, whose an instance is from now on."""

    op: Literal["assign_instance"] = "assign_instance"
    instance_id: InstanceId
    image_id: ImageId
    owner: Owner
    port: Port
    created_at: Annotated[AwareDatetime, Field(strict=False)]


class CloseInstance(Request[Done]):
    """Close the port, cut what is connected through it, stop Postgres, and keep the data.

    StartInstance opens it again.
    """

    deadline_s: ClassVar[float] = 180
    op: Literal["close_instance"] = "close_instance"
    instance_id: InstanceId


class AdmitAddresses(Request[InstanceState]):
    """Have the port of an instance reached from these addresses from now on, as in StartInstance.

    Connections of others that are open hear nothing any more. A port that is not open stays as it is.
    """

    op: Literal["admit_addresses"] = "admit_addresses"
    instance_id: InstanceId
    addresses: Addresses | None


class LimitInstance(Request[InstanceState]):
    """Have an instance keep to this ceiling from now on, without a restart of its Postgres."""

    op: Literal["limit_instance"] = "limit_instance"
    instance_id: InstanceId
    ceiling: Ceiling


class DestroyInstance(Request[Done]):
    """Close the port, stop Postgres, move the subvolume to the trash."""

    deadline_s: ClassVar[float] = 300
    op: Literal["destroy_instance"] = "destroy_instance"
    instance_id: InstanceId


class Admission(Wire):
    """From where one open port is reached, LOOPBACK among it; None is from everywhere."""

    instance_id: int
    addresses: list[IPv4Network | IPv6Network] | None


class Admissions(Wire):
    """All open ports."""

    ports: list[Admission]


class ObserveAddresses(Request[Admissions]):
    """From where each open port is reached."""

    op: Literal["observe_addresses"] = "observe_addresses"
