"""Bodies of the allowlist of an instance."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from draupnir.addresses import Cidr, write_cidr
from draupnir.api.schemas.requests import Attributes
from draupnir.api.schemas.values import ADMISSIBLE, ADMISSION, WrittenTime, write_time
from draupnir.models import AddressOrigin, AllowedAddress


class NewAddress(Attributes):
    """The attributes of POST /instances/N/addresses; `expires_in` is in seconds."""

    address: Annotated[Cidr, ADMISSIBLE]
    expires_in: Annotated[int | None, ADMISSION] = None


class AddressAttributes(TypedDict):
    """An entry of the allowlist: address or network, origin and expiry."""

    address: Annotated[str, Field(description="In CIDR notation.")]
    origin: AddressOrigin
    expires_at: WrittenTime


class AddressResource(TypedDict):
    """An entry of the allowlist."""

    type: Literal["addresses"]
    id: str
    attributes: AddressAttributes


def write_address(allowed: AllowedAddress) -> AddressResource:
    """Return the resource object of an entry of the allowlist."""
    return {"type": "addresses", "id": write_cidr(allowed.network), "attributes": write_address_attributes(allowed)}


def write_address_attributes(allowed: AllowedAddress) -> AddressAttributes:
    """Return the attributes of an entry of the allowlist."""
    return {
        "address": write_cidr(allowed.network),
        "origin": allowed.origin,
        "expires_at": write_time(allowed.expires_at),
    }
