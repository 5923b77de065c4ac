"""The envelopes of answers: one resource, many resources, or errors."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, NotRequired, TypeVar

from pydantic import Field

# pydantic accepts the version of `typing` only from Python 3.12 on.
from typing_extensions import TypedDict

Resource = TypeVar("Resource")


class One(TypedDict, Generic[Resource]):
    """An answer about one resource."""

    data: Resource


class Many(TypedDict, Generic[Resource]):
    """An answer that lists resources."""

    data: list[Resource]


class Problem(TypedDict):
    """An error: a stable code, and a sentence that says what to do."""

    status: Annotated[str, Field(description="The HTTP status as text.")]
    code: Annotated[str, Field(description="Stable; meant for programs.")]
    title: str
    detail: Annotated[str, Field(description="What happened, why, and what to do.")]


class Problems(TypedDict):
    """The body of every answer that is not a success."""

    errors: list[Problem]


class Health(TypedDict):
    """The answer of a healthy service."""

    status: Literal["ok"]
    disk: NotRequired[Annotated[Literal["low"], Field(description="A warning, before the disk is full.")]]


class HealthParts(TypedDict):
    """The state of each part: `ok`, or its problem."""

    metadata: str
    helper: str
    disk: NotRequired[str]


class Unhealthy(Problems):
    """The answer of a service that is not healthy, with its parts."""

    status: Literal["unavailable"]
    parts: HealthParts
