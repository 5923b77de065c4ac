"""Bodies about instances."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from draupnir.api.schemas.addresses import AddressAttributes, write_address_attributes
from draupnir.api.schemas.events import EventResource, write_event
from draupnir.api.schemas.requests import Attributes
from draupnir.api.schemas.values import CEILING, EMAIL, FLAG, ID, PARAMETERS, SECONDS, TEXT, WrittenTime, write_time
from draupnir.lifecycles import Event
from draupnir.models import AllowedAddress, Condition, Credentials, Instance, Network, Observation, Shape


def read_network(value: object) -> Network:
    """Parse the name of a network. Raises ValueError."""
    if isinstance(value, str) and value in set(Network):
        return Network(value)
    raise ValueError(f"must be {' or '.join(repr(network.value) for network in Network)}")


NETWORK = BeforeValidator(read_network, json_schema_input_type=Network)


class NewInstance(Attributes):
    """The attributes of POST /instances; an image_id above MAX_ID is accepted, because it leads to NotFound."""

    image_id: Annotated[int, ID]
    sleep_after: Annotated[int | None, SECONDS, Field(description="Idle timeout in seconds; 0 for never.")] = None
    network: Annotated[Network | None, NETWORK] = None
    max_bytes: Annotated[int | None, CEILING, Field(description="How much it may write.")] = None
    settings: Annotated[dict[str, str], PARAMETERS] = Field(default_factory=dict)
    superuser: Annotated[bool, FLAG, Field(description="Make the role `draupnir` a superuser.")] = False
    role: Annotated[str | None, TEXT, Field(description="The Postgres role that the credentials are for.")] = None

    def shape(self, default: Shape) -> Shape:
        """Return the requested shape, with defaults for missing values; a direct instance never sleeps."""
        network = self.network or default.network
        sleep_after_s = default.sleep_after_s if self.sleep_after is None else self.sleep_after
        max_bytes = default.max_bytes if self.max_bytes is None else self.max_bytes
        sleep_after_s = 0 if network is Network.DIRECT else sleep_after_s
        return Shape(sleep_after_s, network, max_bytes, self.settings, self.superuser)


class Restart(Attributes):
    """The attributes of POST /instances/N/restart: none."""


class Restoration(Attributes):
    """The attributes of POST /instances/N/restore: the new owner, if it is to change."""

    owner: Annotated[str | None, EMAIL] = None


class InstanceCredentials(TypedDict):
    """The credentials of a client, issued for each answer: PEM texts, and PKCS#12 for clients that need it."""

    ca_certificate: str
    client_certificate: str
    client_key: str
    client_pkcs12: Annotated[
        str, Field(description="The client's certificate and key as PKCS#12 in base64; the password is draupnir.")
    ]
    user: str


class InstanceAttributes(TypedDict):
    """The attributes of an instance."""

    created_at: WrittenTime
    updated_at: WrittenTime
    image_id: int
    port: Annotated[str, Field(description="A number as text.", pattern="^[0-9]+$")]
    status: Condition
    sleep_after: Annotated[int, Field(description="Idle timeout in seconds; 0 for never.")]
    network: Network
    max_bytes: Annotated[int | None, Field(description="How much it may write.")]
    settings: Annotated[dict[str, str], Field(description="Settings of Postgres, its own and those of its image.")]
    superuser: Annotated[bool, Field(description="Whether its role `draupnir` is a superuser.")]
    written_bytes: Annotated[int | None, Field(description="How much it wrote; null if that is not known.")]
    hostname: str
    owner: str
    database: Annotated[
        str | None, Field(description="To connect to: the only one with data, or else one that exists.")
    ]
    stop_reason: NotRequired[Annotated[str, Field(description="Why the service stopped it.")]]
    destroy_at: NotRequired[Annotated[WrittenTime, Field(description="When a closed instance is destroyed.")]]
    credentials: NotRequired[Annotated[InstanceCredentials, Field(description="Only for its owner, and not in lists.")]]
    allowed_addresses: NotRequired[
        Annotated[
            list[AddressAttributes],
            Field(description="Only for its owner, where the server has allowlists, and not in lists."),
        ]
    ]
    events: NotRequired[Annotated[list[EventResource], Field(description="The last few; not in lists.")]]


class InstanceResource(TypedDict):
    """An instance."""

    type: Literal["instances"]
    id: int
    attributes: InstanceAttributes


def write_instance(
    instance: Instance,
    observation: Observation,
    hostname: str,
    credentials: Credentials | None = None,
    destroy_at: datetime | None = None,
    allowed: Sequence[AllowedAddress] | None = None,
    events: Sequence[Event] = (),
) -> InstanceResource:
    """Return the resource object of an instance; credentials and allowlist only for its owner, and not in lists."""
    attributes: InstanceAttributes = {
        "created_at": write_time(instance.created_at),
        "updated_at": write_time(instance.updated_at),
        "image_id": instance.image_id,
        "port": str(instance.port),
        "status": observation.condition,
        "sleep_after": instance.shape.sleep_after_s,
        "network": instance.shape.network,
        "max_bytes": instance.shape.max_bytes,
        "settings": instance.parameters,
        "superuser": instance.shape.superuser,
        "written_bytes": observation.written_bytes,
        "hostname": hostname,
        "owner": instance.owner,
        "database": instance.database,
    }
    if instance.stop_reason is not None:
        attributes["stop_reason"] = instance.stop_reason
    if destroy_at is not None:
        attributes["destroy_at"] = write_time(destroy_at)
    if credentials is not None:
        attributes["credentials"] = {
            "ca_certificate": credentials.ca_certificate,
            "client_certificate": credentials.client_certificate,
            "client_key": credentials.client_key,
            "client_pkcs12": b64encode(credentials.client_pkcs12).decode("ascii"),
            "user": credentials.role,
        }
    if allowed is not None:
        attributes["allowed_addresses"] = [write_address_attributes(each) for each in allowed]
    if events:
        attributes["events"] = [write_event(each) for each in events]
    return {"type": "instances", "id": instance.id, "attributes": attributes}
