"""The contract between daemon and helper: requests, replies and error codes as strict frozen values.

Imports pydantic and the standard library only; the daemon imports this package and nothing else of its parent.

Each connection has one request: the client writes one JSON object with its protocol number, and half-closes; the
helper answers with one JSON object, and closes. A request contains only ids and small typed values, never a path, a
unit name, an environment or a command line.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from draupnir_helper.wire.disk import (
    EmptyTrash,
    Inspect,
    Inspection,
    Memory,
    Room,
    Storage,
    Trash,
)
from draupnir_helper.wire.images import (
    CreateUpload,
    DestroyImage,
    DiscardParts,
    ErrorText,
    KeepErrorText,
    LimitUploads,
    Published,
    PublishImage,
    ReadErrorText,
    ReadReport,
    ReportText,
    Sealed,
    SealUpload,
)
from draupnir_helper.wire.instances import (
    LOOPBACK,
    MAX_ADDRESSES,
    MIN_MAX_BYTES,
    Addresses,
    Admission,
    Admissions,
    AdmitAddresses,
    AssignInstance,
    Ceiling,
    CloseInstance,
    DestroyInstance,
    InstanceState,
    LimitInstance,
    MaxBytes,
    ObserveAddresses,
    Owner,
    Pem,
    Port,
    StartInstance,
)
from draupnir_helper.wire.inventory import (
    ImageFound,
    Inventory,
    Observed,
    ObserveInstances,
    TakeInventory,
    Written,
)
from draupnir_helper.wire.jobs import (
    InspectJob,
    Job,
    JobKind,
    JobReport,
    JobState,
    Script,
    StartExtract,
    StartFinalise,
    StopJobs,
)
from draupnir_helper.wire.models import (
    MAX_ID,
    PROTOCOL,
    Answer,
    AnyRequest,
    Done,
    ErrorCode,
    ImageId,
    InstanceId,
    PostgresMajor,
    Refusal,
    Request,
    Wire,
)
from draupnir_helper.wire.parameters import GROUPS, PARAMETERS, Parameters, applicable, fault

SOCKET_PATH = "/run/draupnir-helper.sock"
MAX_REQUEST_BYTES = 2 * 1024 * 1024
MAX_REPLY_BYTES = 8 * 1024 * 1024

# Each request class inherits from Request[its reply], which inherits from Request.
REQUESTS: tuple[type[AnyRequest], ...] = tuple(
    kind for base in Request.__subclasses__() for kind in base.__subclasses__()
)
_adapter: TypeAdapter[AnyRequest] = TypeAdapter(Annotated[reduce(or_, REQUESTS), Field(discriminator="op")])


class OtherProtocol(Exception):
    """The request has another protocol; `number` is 0 if it is missing."""

    def __init__(self, number: int) -> None:
        super().__init__(f"protocol {number}")
        self.number = number


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    protocol: int = 0


def parse_request(frame: bytes | str) -> AnyRequest:
    """Decode one request; `op` selects its class. Raises ValidationError or OtherProtocol."""
    # Check the protocol first, because a request of another protocol need not match any class here.
    number = _Envelope.model_validate_json(frame).protocol
    if number != PROTOCOL:
        raise OtherProtocol(number)
    return _adapter.validate_json(frame)


__all__ = [
    "GROUPS",
    "LOOPBACK",
    "MAX_ADDRESSES",
    "MAX_ID",
    "MAX_REPLY_BYTES",
    "MAX_REQUEST_BYTES",
    "MIN_MAX_BYTES",
    "PARAMETERS",
    "PROTOCOL",
    "REQUESTS",
    "SOCKET_PATH",
    "Addresses",
    "Admission",
    "Admissions",
    "AdmitAddresses",
    "Answer",
    "AnyRequest",
    "AssignInstance",
    "Ceiling",
    "CloseInstance",
    "CreateUpload",
    "DestroyImage",
    "DestroyInstance",
    "DiscardParts",
    "Done",
    "EmptyTrash",
    "ErrorCode",
    "ErrorText",
    "ImageFound",
    "ImageId",
    "Inspect",
    "InspectJob",
    "Inspection",
    "InstanceId",
    "InstanceState",
    "Inventory",
    "Job",
    "JobKind",
    "JobReport",
    "JobState",
    "KeepErrorText",
    "LimitInstance",
    "LimitUploads",
    "MaxBytes",
    "Memory",
    "ObserveAddresses",
    "ObserveInstances",
    "Observed",
    "OtherProtocol",
    "Owner",
    "Parameters",
    "Pem",
    "Port",
    "PostgresMajor",
    "PublishImage",
    "Published",
    "ReadErrorText",
    "ReadReport",
    "Refusal",
    "ReportText",
    "Request",
    "Room",
    "Script",
    "SealUpload",
    "Sealed",
    "StartExtract",
    "StartFinalise",
    "StartInstance",
    "StopJobs",
    "Storage",
    "TakeInventory",
    "Trash",
    "Wire",
    "Written",
    "applicable",
    "fault",
    "parse_request",
]
