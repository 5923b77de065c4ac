"""The requests about instances: their data, their ports and their limits."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field

from draupnir_helper.wire.models import Done, ImageId, InstanceId, PostgresMajor, Request, Wire
from draupnir_helper.wire.parameters import Parameters

Port = Annotated[int, Field(strict=True, ge=1024, le=65535)]
Owner = Annotated[str, Field(pattern=r"^[A-Za-z0-9._+'@-]{1,254}$")]
Pem = Annotated[
    str,
    Field(
        max_length=16 * 1024,
        pattern=r"^(-----BEGIN [A-Z ]{1,40}-----\n[A-Za-z0-9+/=\n]{1,8192}-----END [A-Z ]{1,40}-----\n)+$",
    ),
]
# A smaller ceiling is refused, because Postgres itself needs this much.
MIN_MAX_BYTES = 64 * 1024 * 1024
MaxBytes = Annotated[int, Field(strict=True, ge=MIN_MAX_BYTES, le=2**60)]
# Every allowlist has these, because the server itself connects to instances, to wake and to test them.
LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
MAX_ADDRESSES = 64
Addresses = Annotated[list[IPv4Network | IPv6Network], Field(max_length=MAX_ADDRESSES)]


class Ceiling(Wire):
    """The write limit of an instance; the kernel's own limit is higher by a reserve.

    `read_only`: new transactions are read-only by default. `extended`: the instance gets the reserve twice.
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
    """Open the port of an instance, with Postgres behind it.

    `new`: copy the data from the image, owned by the instance's own uid, unless they exist, and start Postgres at
    once. Otherwise the data must exist, and the first connection starts Postgres. An open port keeps its certificates.

    `addresses`: the allowlist of the port, beside LOOPBACK, or None for no allowlist.
    `sleep_after_s`: the idle timeout, or 0 for none. `direct`: Postgres itself listens, in the network of the
    host, and never sleeps. `superuser`: the role draupnir is a superuser, which the configuration has to allow, and for
    which the image has to be proved. `ceiling`: None for an instance that was made before ceilings existed.
    `parameters`: settings of Postgres, name to value, that the configuration file has beside the fixed ones.
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
    superuser: bool
    ceiling: Ceiling | None
    parameters: Parameters
    authority_certificate: Pem
    server_certificate: Pem
    server_key: Pem


class AssignInstance(Request[InstanceState]):
    """Write the new owner of an instance to its manifest and to the descriptions of its units."""

    op: Literal["assign_instance"] = "assign_instance"
    instance_id: InstanceId
    image_id: ImageId
    owner: Owner
    port: Port
    created_at: Annotated[AwareDatetime, Field(strict=False)]


class CloseInstance(Request[Done]):
    """Close the port with its connections, stop Postgres, and keep the data.

    StartInstance opens it again.
    """

    deadline_s: ClassVar[float] = 180
    op: Literal["close_instance"] = "close_instance"
    instance_id: InstanceId


class AdmitAddresses(Request[InstanceState]):
    """Replace the allowlist of an open port, as in StartInstance; a closed port has none.

    Open connections from other addresses get no more packets.
    """

    op: Literal["admit_addresses"] = "admit_addresses"
    instance_id: InstanceId
    addresses: Addresses | None


class LimitInstance(Request[InstanceState]):
    """Replace the ceiling of an instance, without a restart of its Postgres."""

    op: Literal["limit_instance"] = "limit_instance"
    instance_id: InstanceId
    ceiling: Ceiling
    parameters: Parameters


class DestroyInstance(Request[Done]):
    """Close the port, stop Postgres, and move the subvolume to the trash."""

    deadline_s: ClassVar[float] = 300
    op: Literal["destroy_instance"] = "destroy_instance"
    instance_id: InstanceId


class Admission(Wire):
    """The allowlist of one open port, with LOOPBACK, or None for no allowlist."""

    instance_id: int
    addresses: list[IPv4Network | IPv6Network] | None


class Admissions(Wire):
    """The allowlists of all open ports."""

    ports: list[Admission]


class ObserveAddresses(Request[Admissions]):
    """Return the allowlists of all open ports."""

    op: Literal["observe_addresses"] = "observe_addresses"
