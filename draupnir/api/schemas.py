"""Bodies of requests and answers: requests are read tolerantly into frozen values, answers are built from models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from draupnir import emails, errors
from draupnir.addresses import Cidr, read_cidr, write_cidr
from draupnir.api.bodies import quote
from draupnir.lifecycles import Event
from draupnir.models import AllowedAddress, Credentials, Image, ImageStatus, Instance, Network, Observation, Shape
from draupnir_helper.wire import MAX_ID, MIN_MAX_BYTES

EARLIEST_YEAR, LATEST_YEAR = 1970, 2199
LONGEST_SLEEP_AFTER_S = 30 * 24 * 3600
SHORTEST_ADMISSION_S, LONGEST_ADMISSION_S = 60, 365 * 24 * 3600
# A list is to keep people out: what holds more than a large provider does is taken for a slip.
WIDEST_V4, WIDEST_V6 = 8, 32
# Of what is wrong with a body; an answer is not to be many times as long as the request.
MOST_EXPLAINED = 10

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DECIMAL = re.compile(r"[1-9][0-9]{0,18}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def read_time(value: object) -> datetime:
    """An RFC 3339 time with a zone, in UTC; raises ValueError."""
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError('must be a time with its zone, such as "2017-05-01T12:00:00Z"')
    try:
        time = datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise ValueError(f"must be a time that exists ({error})") from error
    if not EARLIEST_YEAR <= time.year <= LATEST_YEAR:
        raise ValueError(f"must be a time of the years {EARLIEST_YEAR} to {LATEST_YEAR}")
    return time.astimezone(UTC)


def read_text(value: object) -> str:
    """A text that Postgres can store; raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("must be a text")
    if found := _UNSTORABLE.search(value):
        raise ValueError(f"must not hold the character U+{ord(found.group()):04X}, which is character {found.start()}")
    return value


def read_id(value: object) -> int:
    """A positive integer, also written as a decimal string; raises ValueError."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError("must be a positive integer, such as 1")


def read_seconds(value: object) -> int:
    """Whole seconds up to thirty days, 0 for never; raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LONGEST_SLEEP_AFTER_S:
        return value
    raise ValueError(f"must be a number of seconds from 0 (never) to {LONGEST_SLEEP_AFTER_S}")


def read_ceiling(value: object) -> int:
    """How many bytes an instance may write; raises ValueError. How many are too many the operator has decided."""
    if isinstance(value, int) and not isinstance(value, bool) and MIN_MAX_BYTES <= value < 2**60:
        return value
    raise ValueError(f"must be a number of bytes, {MIN_MAX_BYTES} or more")


def read_admissible(value: object) -> Cidr:
    """An address or network that a port may admit; raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("must be an address or a network in a text, such as '192.0.2.7' or '192.0.2.0/24'")
    try:
        cidr = read_cidr(value)
    except ValueError as error:
        raise ValueError("must be an address or a network, such as '192.0.2.7' or '192.0.2.0/24'") from error
    if cidr.prefixlen < (WIDEST_V4 if cidr.version == 4 else WIDEST_V6):
        raise ValueError(f"must be no wider than /{WIDEST_V4} (IPv4) or /{WIDEST_V6} (IPv6)")
    return cidr


def read_admission(value: object) -> int:
    """For how many seconds an address is admitted; raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and SHORTEST_ADMISSION_S <= value <= LONGEST_ADMISSION_S:
        return value
    raise ValueError(f"must be a number of seconds from {SHORTEST_ADMISSION_S} to {LONGEST_ADMISSION_S}")


def read_network(value: object) -> Network:
    """One of the networks by name; raises ValueError."""
    if isinstance(value, str) and value in set(Network):
        return Network(value)
    raise ValueError(f"must be {' or '.join(repr(network.value) for network in Network)}")


def read_address(value: object) -> str:
    """An e-mail address, in lower case; raises ValueError."""
    if isinstance(value, str) and emails.PATTERN.fullmatch(value):
        return value.lower()
    raise ValueError("must be an e-mail address")


def read_flag(parameters: Mapping[str, str], name: str) -> bool:
    """A query parameter that is `true` or `false`, and false where it is absent; raises InvalidRequest."""
    word = parameters.get(name, "false")
    if word not in ("true", "false"):
        raise errors.InvalidRequest(f"`{name}` must be true or false, not {quote(word)}.")
    return word == "true"


class Attributes(BaseModel):
    """Base of what can be asked: frozen, and closed to attributes that cannot be set, lest they be lost unsaid.

    What was given for one of `unrepeatable` is in no answer, for it might be a secret with a slip in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    unrepeatable: ClassVar[frozenset[str]] = frozenset()


class NewImage(Attributes):
    """The attributes of POST /images."""

    backed_up_at: Annotated[datetime, BeforeValidator(read_time)]
    anonymisation_script: Annotated[str, BeforeValidator(read_text)]


class ImageChange(Attributes):
    """The attributes of PATCH /images/N; what is absent stays."""

    backed_up_at: Annotated[datetime | None, BeforeValidator(read_time)] = None
    anonymisation_script: Annotated[str | None, BeforeValidator(read_text)] = None


class NewInstance(Attributes):
    """The attributes of POST /instances; an id above MAX_ID is read, for it names an image that is not there."""

    image_id: Annotated[int, BeforeValidator(read_id)]
    sleep_after: Annotated[int | None, BeforeValidator(read_seconds)] = None
    network: Annotated[Network | None, BeforeValidator(read_network)] = None
    max_bytes: Annotated[int | None, BeforeValidator(read_ceiling)] = None

    def shape(self, default: Shape) -> Shape:
        """What was asked for, and for the rest the default; a direct instance never sleeps."""
        network = self.network or default.network
        sleep_after_s = default.sleep_after_s if self.sleep_after is None else self.sleep_after
        max_bytes = default.max_bytes if self.max_bytes is None else self.max_bytes
        return Shape(0 if network is Network.DIRECT else sleep_after_s, network, max_bytes)


class Restart(Attributes):
    """The attributes of POST /instances/N/restart: none."""


class Restoration(Attributes):
    """The attributes of POST /instances/N/restore: whose it is to be, if not its owner's."""

    owner: Annotated[str | None, BeforeValidator(read_address)] = None


class NewAddress(Attributes):
    """The attributes of POST /instances/N/addresses."""

    address: Annotated[Cidr, BeforeValidator(read_admissible)]
    expires_in: Annotated[int | None, BeforeValidator(read_admission)] = None


AnyAttributes = TypeVar("AnyAttributes", bound=Attributes)


def read_attributes(
    document: dict[str, object], kind: str, attributes: type[AnyAttributes], expected_id: int | None = None
) -> AnyAttributes:
    """The attributes of `{"data": {"type", "id", "attributes"}}`; raises InvalidRequest naming what is wrong.

    `type` and `id` may be absent or empty (clients of the Go program send them empty); `id` must be `expected_id`.
    """
    data = _member(document, "data", "data")
    given_kind = data.get("type", "")
    if given_kind not in ("", kind):
        raise errors.InvalidRequest(f"`data.type` must be {quote(kind)} here, not {quote(given_kind)}.")
    if data.get("id", "") != "":
        _check_id(data["id"], expected_id)
    try:
        return attributes.model_validate(_member(data, "attributes", "data.attributes"))
    except ValidationError as error:
        raise errors.InvalidRequest(_explain(error, attributes)) from error


def _member(parent: dict[str, object], name: str, path: str) -> dict[str, object]:
    if name not in parent:
        raise errors.InvalidRequest(f'`{path}` is missing; send {{"data": {{"attributes": {{…}}}}}}.')
    value = parent[name]
    if not isinstance(value, dict):
        raise errors.InvalidRequest(f"`{path}` must be an object, not {quote(value)}.")
    return value


def _check_id(value: object, expected_id: int | None) -> None:
    try:
        given_id = read_id(value)
    except ValueError as error:
        raise errors.InvalidRequest(f"`data.id` {error}, not {quote(value)}.") from error
    if expected_id is None:
        raise errors.InvalidRequest("`data.id` is chosen by the service; leave it out.")
    if given_id != expected_id:
        raise errors.InvalidRequest(f"`data.id` is {given_id} and the path says {expected_id}; make them the same.")


def _explain(error: ValidationError, attributes: type[Attributes]) -> str:
    return " ".join(
        _explain_one(str(found["loc"][0]), found["type"], found.get("ctx", {}).get("error"), found["input"], attributes)
        for found in error.errors(include_url=False)[:MOST_EXPLAINED]
    )


def _explain_one(name: str, kind: str, reason: object, value: object, attributes: type[Attributes]) -> str:
    if kind == "missing":
        hint = ' (send "" if nothing is to be run)' if name == "anonymisation_script" else ""
        return f"`data.attributes.{name}` is missing; send it{hint}."
    if kind == "extra_forbidden":
        known = " and ".join(attributes.model_fields)
        return f"`data.attributes` holds {quote(name)}, which cannot be set; what can be set is {known}."
    given = "" if name in attributes.unrepeatable else f", not {quote(value)}"
    return f"`data.attributes.{name}` {reason}{given}."


def write_time(time: datetime) -> str:
    """A time as `2017-05-01T12:00:00Z`, cut to whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_image(image: Image, now: datetime) -> dict[str, object]:
    """The resource object of an image."""
    attributes: dict[str, object] = {
        "backed_up_at": write_time(image.backed_up_at),
        "created_at": write_time(image.created_at),
        "updated_at": write_time(image.updated_at),
        "ready": image.status is ImageStatus.READY,
        "status": image.status.value,
        "error": _write_failure(image),
        "progress": _write_progress(image, now),
        "anonymisation_script": image.anonymisation_script,
        "postgres_version": None if image.postgres_major is None else str(image.postgres_major),
        "size_bytes": image.size_bytes,
        "tables_written_by_triggers": list(image.trigger_tables),
    }
    if image.script_truncated:
        attributes["anonymisation_script_truncated"] = True
    return {"type": "images", "id": image.id, "attributes": attributes}


def write_image_error(image: Image, text: str) -> dict[str, object]:
    """The resource object of all that was said of why an image failed; it may quote raw data."""
    return {"type": "image_errors", "id": image.id, "attributes": {**(_write_failure(image) or {}), "text": text}}


def _write_failure(image: Image) -> dict[str, object] | None:
    if image.status is not ImageStatus.FAILED or image.failure is None:
        return None
    return {"code": image.failure.code, "detail": image.failure.detail}


def _write_progress(image: Image, now: datetime) -> dict[str, object] | None:
    if image.status is not ImageStatus.FINALISING or image.step is None:
        return None
    progress = image.progress
    started_at = progress.started_at if progress else None
    return {
        "step": image.step.value,
        "activity": progress.activity if progress else "",
        "done_bytes": progress.done_bytes if progress else None,
        "total_bytes": progress.total_bytes if progress else None,
        "seconds": None if started_at is None else max(0, int((now - started_at).total_seconds())),
    }


def write_instance(
    instance: Instance,
    observation: Observation,
    hostname: str,
    credentials: Credentials | None = None,
    destroy_at: datetime | None = None,
    allowed: Sequence[AllowedAddress] | None = None,
    events: Sequence[Event] = (),
) -> dict[str, object]:
    """The resource object of an instance; credentials and allowed addresses only where its owner asked for this one."""
    attributes: dict[str, object] = {
        "created_at": write_time(instance.created_at),
        "updated_at": write_time(instance.updated_at),
        "image_id": instance.image_id,
        "port": str(instance.port),
        "status": observation.condition.value,
        "sleep_after": instance.shape.sleep_after_s,
        "network": instance.shape.network.value,
        "max_bytes": instance.shape.max_bytes,
        "written_bytes": observation.written_bytes,
        "hostname": hostname,
        "owner": instance.owner,
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
            "user": "draupnir",
        }
    if allowed is not None:
        attributes["allowed_addresses"] = [_address_attributes(each) for each in allowed]
    if events:
        attributes["events"] = [write_event(each) for each in events]
    return {"type": "instances", "id": instance.id, "attributes": attributes}


def write_event(event: Event) -> dict[str, object]:
    """The resource object of an event."""
    attributes = {
        "happened_at": write_time(event.happened_at),
        "event": event.name,
        "subject": {"type": f"{event.kind}s", "id": str(event.subject_id)},
        "from": event.before,
        "to": event.after,
        "owner": event.owner,
        "caller": event.caller,
        "reason": event.reason or None,
        "request_id": event.request_id,
    }
    return {"type": "events", "id": str(event.id), "attributes": attributes}


def write_address(allowed: AllowedAddress) -> dict[str, object]:
    """The resource object of an address that a port admits."""
    return {"type": "addresses", "id": write_cidr(allowed.network), "attributes": _address_attributes(allowed)}


def _address_attributes(allowed: AllowedAddress) -> dict[str, object]:
    return {
        "address": write_cidr(allowed.network),
        "origin": allowed.origin.value,
        "expires_at": write_time(allowed.expires_at),
    }


def existing_id(value: str | int, noun: str) -> int:
    """The id of an `image` or `instance` that could exist; raises NotFound for any other text or number."""
    text = str(value)
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_ID:
        error = errors.NotFound(f"There is no {noun} {quote(value)}; list them with GET /{noun}s.")
        error.title = f"{noun.capitalize()} not found"
        raise error
    return int(text)
