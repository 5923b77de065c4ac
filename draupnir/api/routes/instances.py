"""The URLs of instances and events."""

from __future__ import annotations

from draupnir import errors
from draupnir.api import addresses, events, instances
from draupnir.api.endpoints import Body, Endpoint, Errors, Parameter
from draupnir.api.routes.shared import EVERYBODYS, HELPER, START
from draupnir.api.schemas.addresses import AddressResource, NewAddress
from draupnir.api.schemas.answers import Many, One
from draupnir.api.schemas.events import EventResource
from draupnir.api.schemas.instances import InstanceResource, NewInstance, Restart, Restoration
from draupnir.helper import UnitFailed
from draupnir.operations.superusers import ImageNotProved, SuperuserNotAllowed
from draupnir.roles import OWNED, PERSONAL, RESERVED

ALLOWLIST: Errors = (errors.AllowListsOff, errors.FilterMissing)

ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/instances",
        access=OWNED,
        handler=instances.list_some,
        does="Lists your instances, or those of all users.",
        parameters=(EVERYBODYS,),
        answers={200: Many[InstanceResource]},
        errors=HELPER,
    ),
    Endpoint(
        method="POST",
        path="/instances",
        access=PERSONAL,
        handler=instances.create,
        does="Creates an instance, with `port`, `hostname`, `credentials`.",
        body=Body("instances", NewInstance, {"image_id": 1}),
        answers={201: One[InstanceResource]},
        errors=(
            *START,
            *(
                errors.NotFound,
                errors.ImageNotReady,
                errors.DirectRefused,
                errors.CeilingTooHigh,
                errors.SettingRefused,
                errors.RoleRefused,
                SuperuserNotAllowed,
                ImageNotProved,
            ),
            *(errors.NoFreePort, errors.NoFreeId, errors.TooManyInstances, errors.WrongState),
            *(*ALLOWLIST, errors.TooManyAddresses),
        ),
    ),
    Endpoint(
        method="GET",
        path="/instances/{instance_id}",
        access=OWNED,
        handler=instances.show,
        does="Returns an instance: `status`, `written_bytes`, `max_bytes`, `database`; for its owner also `credentials`"
        " of the Postgres role `draupnir`, or of another.",
        parameters=(Parameter("role", {"type": "string"}, "app"),),
        answers={200: One[InstanceResource]},
        errors=(*HELPER, errors.RoleRefused, *ALLOWLIST, errors.TooManyAddresses, errors.EncryptionKeyMissing),
    ),
    Endpoint(
        method="DELETE",
        path="/instances/{instance_id}",
        access=OWNED,
        handler=instances.destroy,
        does="Destroys an instance.",
        answers={204: None},
        errors=(*HELPER, UnitFailed),
    ),
    Endpoint(
        method="POST",
        path="/instances/{instance_id}/restart",
        access=OWNED,
        handler=instances.restart,
        does="Restarts Postgres, or opens a stopped instance.",
        body=Body("instances", Restart, {}, required=False, has_id=True),
        answers={200: One[InstanceResource]},
        errors=(*START, errors.FilterMissing, errors.WrongState),
    ),
    Endpoint(
        method="POST",
        path="/instances/{instance_id}/restore",
        access=RESERVED,
        handler=instances.restore,
        does="Opens a closed instance for its owner or for another one.",
        body=Body("instances", Restoration, {"owner": "ann@example.com"}, required=False, has_id=True),
        answers={200: One[InstanceResource]},
        errors=(*START, errors.FilterMissing, errors.OwnerUnknown, errors.WrongState),
    ),
    Endpoint(
        method="GET",
        path="/instances/{instance_id}/addresses",
        access=OWNED,
        handler=addresses.list_all,
        does="Returns the allowlist of the port, where the server has `enable_ip_whitelisting`.",
        answers={200: Many[AddressResource]},
        errors=ALLOWLIST,
    ),
    Endpoint(
        method="POST",
        path="/instances/{instance_id}/addresses",
        access=OWNED,
        handler=addresses.create,
        does="Adds an address or network for `expires_in` seconds.",
        body=Body("addresses", NewAddress, {"address": "192.0.2.0/24", "expires_in": 28800}),
        answers={201: One[AddressResource]},
        errors=(*HELPER, *ALLOWLIST, errors.TooManyAddresses),
    ),
    Endpoint(
        method="DELETE",
        path="/instances/{instance_id}/addresses",
        access=OWNED,
        handler=addresses.destroy,
        does="Removes an address or network, and cuts its connections.",
        parameters=(Parameter("address", {"type": "string"}, "192.0.2.0/24", required=True),),
        answers={204: None},
        errors=(*HELPER, *ALLOWLIST),
    ),
    Endpoint(
        method="GET",
        path="/events",
        access=OWNED,
        handler=events.list_some,
        does="Returns the last hundred events of your instances and your actions, or the first hundred after event 17.",
        parameters=(
            EVERYBODYS,
            Parameter("after", {"type": "integer", "minimum": 0, "maximum": events.MAX_EVENT_ID}, "17"),
        ),
        answers={200: Many[EventResource]},
    ),
)
