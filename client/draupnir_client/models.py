"""The API's answers as small frozen values. The readers ignore unknown fields."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from draupnir_client.errors import BadAnswer

Document = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a finalise. Bytes and seconds are None if unknown."""

    step: str
    activity: str
    done_bytes: int | None
    total_bytes: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Image:
    """An image. Times are the API's strings, and `document` is the API's object, for programs."""

    document: Document
    id: int
    status: str
    ready: bool
    backed_up_at: str
    created_at: str
    updated_at: str
    anonymisation_script: str
    postgres_version: str | None
    size_bytes: int | None
    settings: tuple[str, ...]
    tables_written_by_triggers: tuple[str, ...]
    proved: bool | None
    error: str | None
    error_code: str | None
    progress: Progress | None

    @property
    def age_key(self) -> tuple[datetime, int]:
        """Return a sort key, oldest backup first. An image with an invalid time counts as oldest."""
        try:
            moment = datetime.fromisoformat(self.backed_up_at)
        except ValueError:
            moment = datetime.min.replace(tzinfo=UTC)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)), self.id


class ReportRow(NamedTuple):
    """A row of an image's report. The client interprets one code only, `several_databases`."""

    code: str
    database: str
    object: str
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of a role of an instance: PEM texts, and PKCS#12, which older servers do not return."""

    ca_certificate: str
    client_certificate: str
    client_key: str
    client_pkcs12: bytes | None
    role: str = "draupnir"


@dataclass(frozen=True, slots=True)
class AllowedAddress:
    """An entry of an instance's allowlist; `origin` is `seen` or `added`."""

    address: str
    origin: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance; `document` is the API's object without the credentials, so that no key is printed by accident.

    `sleep_after_s` is the idle timeout; 0 is never. `max_bytes` is the write limit. Only a closed instance has
    `destroy_at`, and only a stopped one `stop_reason`. `database` is the database with the data, if there is exactly
    one. `allowed_addresses` is None if the server has no allowlist, or if the instance belongs to another user.
    """

    document: Document
    id: int
    image_id: int
    port: str
    status: str
    sleep_after_s: int | None
    network: str | None
    max_bytes: int | None
    written_bytes: int | None
    hostname: str
    owner: str
    superuser: bool
    database: str | None
    settings: tuple[str, ...]
    created_at: str
    updated_at: str
    stop_reason: str | None
    destroy_at: str | None
    allowed_addresses: tuple[AllowedAddress, ...] | None
    events: tuple[Event, ...]
    credentials: Credentials | None


@dataclass(frozen=True, slots=True)
class Event:
    """An event of an instance or image; `document` is the API's object."""

    document: Document
    id: int
    happened_at: str
    subject: str
    name: str
    owner: str
    caller: str
    reason: str

    @property
    def row(self) -> list[str]:
        """Return the cells of a table row."""
        who = [self.owner or "-", self.caller, self.reason or "-"]
        return [str(self.id), self.happened_at, self.subject, self.name, *who]

    @property
    def line(self) -> str:
        """Return one line without the subject."""
        return f"{self.happened_at} {self.name} by {self.caller}" + (f" ({self.reason})" if self.reason else "")


def read_image(value: object) -> Image:
    """Read one image object. Raises BadAnswer if it is malformed."""
    document, attributes = resource(value, "images")
    ready = attributes.get("ready") is True
    error = attributes.get("error")
    return Image(
        document=document,
        id=integer(document.get("id"), "id"),
        status=text(attributes, "status") or ("ready" if ready else "awaiting_upload"),
        ready=ready,
        backed_up_at=text(attributes, "backed_up_at"),
        created_at=text(attributes, "created_at"),
        updated_at=text(attributes, "updated_at"),
        anonymisation_script=text(attributes, "anonymisation_script"),
        postgres_version=text(attributes, "postgres_version") or None,
        size_bytes=_count(attributes.get("size_bytes")),
        settings=_assignments(attributes.get("settings")),
        tables_written_by_triggers=_texts(attributes.get("tables_written_by_triggers")),
        proved=_flag(attributes.get("proved")),
        error=(text(error, "detail") or text(error, "code") or None) if isinstance(error, Mapping) else None,
        error_code=(text(error, "code") or None) if isinstance(error, Mapping) else None,
        progress=_progress(attributes.get("progress")),
    )


def _flag(value: object) -> bool | None:
    """Return a boolean, or None if an older server does not send it."""
    return value if isinstance(value, bool) else None


def read_image_error(value: object) -> str:
    """Read the text of an image's error. Raises BadAnswer if it is malformed."""
    return text(resource(value, "image_errors")[1], "text")


def read_report(value: object) -> list[ReportRow]:
    """Read the rows of an image's report. Raises BadAnswer if it is malformed."""
    return [ReportRow(**{name: text(row, name) for name in ReportRow._fields}) for row in _rows(value)]


def _rows(value: object) -> list[Document]:
    rows = resource(value, "reports")[1].get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadAnswer("The server's answer has no rows; check that the url is that of a Draupnir server.")
    return rows


def read_instance(value: object) -> Instance:
    """Read one instance object. Raises BadAnswer if it is malformed."""
    document, attributes = resource(value, "instances")
    shown = {key: attributes[key] for key in attributes if key != "credentials"}
    return Instance(
        document={**document, "attributes": shown},
        id=integer(document.get("id"), "id"),
        image_id=integer(attributes.get("image_id"), "image_id"),
        port=str(integer(attributes.get("port"), "port")),
        status=text(attributes, "status") or "running",
        sleep_after_s=_count(attributes.get("sleep_after")),
        network=text(attributes, "network") or None,
        max_bytes=_count(attributes.get("max_bytes")),
        written_bytes=_count(attributes.get("written_bytes")),
        hostname=text(attributes, "hostname"),
        owner=text(attributes, "owner"),
        superuser=_flag(attributes.get("superuser")) or False,
        database=text(attributes, "database") or None,
        settings=_assignments(attributes.get("settings")),
        created_at=text(attributes, "created_at"),
        updated_at=text(attributes, "updated_at"),
        stop_reason=text(attributes, "stop_reason") or None,
        destroy_at=text(attributes, "destroy_at") or None,
        allowed_addresses=_allowed_addresses(attributes.get("allowed_addresses")),
        events=_events(attributes.get("events")),
        credentials=_credentials(attributes.get("credentials")),
    )


def read_event(value: object) -> Event:
    """Read one event object. Raises BadAnswer if it is malformed."""
    document, attributes = resource(value, "events")
    subject = attributes.get("subject")
    about = subject if isinstance(subject, Mapping) else {}
    return Event(
        document=document,
        id=integer(document.get("id"), "id"),
        happened_at=text(attributes, "happened_at"),
        subject=f"{text(about, 'type').removesuffix('s')} {text(about, 'id')}",
        name=text(attributes, "event"),
        owner=text(attributes, "owner"),
        caller=text(attributes, "caller"),
        reason=text(attributes, "reason"),
    )


def resource(value: object, kind: str) -> tuple[Document, Document]:
    attributes = value.get("attributes") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(attributes, Mapping) or value.get("type", kind) != kind:
        raise BadAnswer(f"The server's answer contains no {kind}; check that the url is that of a Draupnir server.")
    return value, attributes


def integer(value: object, name: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise BadAnswer(f"The server's answer has no valid {name}; check that the url is that of a Draupnir server.")


def text(values: Document, key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _assignments(value: object) -> tuple[str, ...]:
    return tuple(f"{name}={value[name]}" for name in sorted(value)) if isinstance(value, Mapping) else ()


def _progress(value: object) -> Progress | None:
    if not isinstance(value, Mapping):
        return None
    seconds = value.get("seconds")
    return Progress(
        step=text(value, "step"),
        activity=text(value, "activity"),
        done_bytes=_count(value.get("done_bytes")),
        total_bytes=_count(value.get("total_bytes")),
        seconds=float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e9 else None,
    )


def _allowed_addresses(value: object) -> tuple[AllowedAddress, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(
        AllowedAddress(text(each, "address"), text(each, "origin"), text(each, "expires_at"))
        for each in value
        if isinstance(each, Mapping)
    )


def _events(value: object) -> tuple[Event, ...]:
    return tuple(read_event(each) for each in value) if isinstance(value, list) else ()


def _credentials(value: object) -> Credentials | None:
    if not isinstance(value, Mapping):
        return None
    authority, certificate, key = (text(value, name) for name in ("ca_certificate", "client_certificate", "client_key"))
    if not (authority and certificate and key):
        return None
    try:
        pkcs12 = base64.b64decode(text(value, "client_pkcs12"), validate=True)
    except ValueError as error:
        raise BadAnswer("The server's answer has no valid client_pkcs12; check the url.") from error
    return Credentials(authority, certificate, key, pkcs12 or None, text(value, "user") or "draupnir")
