"""The description of a route, from which routing, roles, the OpenAPI document and docs/API.md derive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from draupnir import errors, roles
from draupnir.api.auth import ANONYMOUS, caller_of
from draupnir.api.bodies import BodyTooLarge, BodyTooSlow, InvalidJson
from draupnir.api.limits import Handler
from draupnir.api.problems import EDGE_CODES, codes_of, status_of_kind
from draupnir.api.schemas.requests import Attributes

Errors = tuple[type[errors.DraupnirError], ...]

PAGE = "text/html"
"""Marks an answer that is a page for people instead of JSON."""

# Every route uses the metadata, which may not answer, or whose disk may be full.
ALWAYS: Errors = (errors.DraupnirError, errors.Unavailable, errors.MetadataUnavailable, errors.NoRoom)
WITH_TOKEN: Errors = (errors.Unauthorized, errors.Forbidden, errors.TooManyRequests)
WITH_BODY: Errors = (errors.InvalidRequest, InvalidJson, BodyTooLarge, BodyTooSlow)


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request: the type of its resource, its attributes, and an example."""

    kind: str
    attributes: type[Attributes]
    example: Mapping[str, object]
    required: bool = True
    # The path names the resource, so the body may repeat its id.
    has_id: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a request, in the query or in a header."""

    name: str
    schema: Mapping[str, object]
    example: str
    place: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A method of a path: its access, handler, inputs and answers.

    `answers` has the type of the body for each success status: a TypedDict, PAGE, or None. `errors` are those that do
    not follow from the other fields. `does` is a description for people.
    """

    method: str
    path: str
    access: roles.Access
    handler: Handler
    does: str
    answers: Mapping[int, object]
    body: Body | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: Errors = ()
    # A read-only token may send this request although it changes something.
    for_read_only: bool = False
    # The errors of this endpoint are pages.
    for_people: bool = False

    @property
    def is_reading(self) -> bool:
        """Return whether a read-only token may send this request."""
        return self.method == "GET" or self.for_read_only

    def codes(self) -> dict[int, set[str]]:
        """Return every error code of the endpoint, by status."""
        kinds = {*ALWAYS, *self.errors}
        if not self.access.is_public:
            kinds |= {*WITH_TOKEN}
        if self.body is not None:
            kinds |= {*WITH_BODY}
        if self.parameters:
            kinds.add(errors.InvalidRequest)
        if "{" in self.path:
            kinds.add(errors.NotFound)
        found = {status: {*codes} for status, codes in EDGE_CODES.items()}
        for kind in kinds:
            found.setdefault(status_of_kind(kind), set()).update(codes_of(kind))
        return dict(sorted(found.items()))


def route_all(endpoints: Iterable[Endpoint]) -> list[Route]:
    """Return a route for each path, which calls the method's handler with the caller; HEAD is handled like GET."""
    paths: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    return [_route(path, by_method) for path, by_method in paths.items()]


def _route(path: str, by_method: Mapping[str, Endpoint]) -> Route:
    async def answer(request: Request) -> Response:
        endpoint = by_method["GET" if request.method == "HEAD" else request.method]
        caller = ANONYMOUS if endpoint.access.is_public else await caller_of(request)
        return await endpoint.handler(request, roles.admit(endpoint.access, caller, reading=endpoint.is_reading))

    return Route(path, answer, methods=list(by_method))
