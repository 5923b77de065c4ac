"""Parses the body of a request: the envelope of every resource, and the attributes of each."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from draupnir import errors
from draupnir.api.bodies import quote
from draupnir.api.schemas.values import read_id

# An answer explains at most this many errors of a body, so that it is not much longer than the request.
MOST_EXPLAINED = 10


class Attributes(BaseModel):
    """Base of the attributes of requests. It is frozen, and unknown attributes are errors.

    Errors do not quote the value of an attribute in `unrepeatable`, because it might be a mistyped secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    unrepeatable: ClassVar[frozenset[str]] = frozenset()


AnyAttributes = TypeVar("AnyAttributes", bound=Attributes)


def read_attributes(
    document: dict[str, object], kind: str, attributes: type[AnyAttributes], expected_id: int | None = None
) -> AnyAttributes:
    """Parse the attributes of `{"data": {"type", "id", "attributes"}}`. Raises InvalidRequest, which names the error.

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
        raise errors.InvalidRequest(f"`data.id` is {given_id} but the path has {expected_id}; make them equal.")


def _explain(error: ValidationError, attributes: type[Attributes]) -> str:
    return " ".join(
        _explain_one(str(found["loc"][0]), found["type"], found.get("ctx", {}).get("error"), found["input"], attributes)
        for found in error.errors(include_url=False)[:MOST_EXPLAINED]
    )


def _explain_one(name: str, kind: str, reason: object, value: object, attributes: type[Attributes]) -> str:
    if kind == "missing":
        hint = ' (send "" if nothing should run)' if name == "anonymisation_script" else ""
        return f"`data.attributes.{name}` is missing; send it{hint}."
    if kind == "extra_forbidden":
        known = " and ".join(attributes.model_fields)
        return f"`data.attributes` has {quote(name)}, which cannot be set; you can set {known}."
    # For an object, the reason has the faulty member.
    given = "" if name in attributes.unrepeatable or isinstance(value, dict) else f", not {quote(value)}"
    return f"`data.attributes.{name}` {reason}{given}."
