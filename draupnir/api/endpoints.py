"""What a route is: one entry, from which routing, roles, the OpenAPI document and the table of docs/API.md are made."""

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
"""In place of the type of an answer: a page for people."""

# The metadata are asked for everything, and may be away, or on a disk that is full.
ALWAYS: Errors = (errors.DraupnirError, errors.Unavailable, errors.MetadataUnavailable, errors.NoRoom)
WITH_TOKEN: Errors = (errors.Unauthorized, errors.Forbidden, errors.TooManyRequests)
WITH_BODY: Errors = (errors.InvalidRequest, InvalidJson, BodyTooLarge, BodyTooSlow)


@dataclass(frozen=True, slots=True)
class Body:
    """What a request holds: the type of its resource, its attributes, and an example of them."""

    kind: str
    attributes: type[Attributes]
    example: Mapping[str, object]
    required: bool = True
    # Whether the resource is one that the path names, so that the body may repeat its id.
    has_id: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a request may have in its query, or in a header."""

    name: str
    schema: Mapping[str, object]
    example: str
    place: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A method of a path: for whom, by what, and what goes in and comes out.

    `answers` has the type of the body for each status of a success: a TypedDict, PAGE, or None. `errors` are those
    that it has beyond what follows from the rest of the entry. `does` is a line for people.
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
    # What a read-only token may do although it is a change.
    for_read_only: bool = False
    # Where its errors are pages.
    for_people: bool = False

    @property
    def is_reading(self) -> bool:
        """Whether a read-only token may do it."""
        return self.method == "GET" or self.for_read_only

    def codes(self) -> dict[int, set[str]]:
        """Every code with which it may refuse, by status."""
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
    """A route for each path, that calls the handler of the method with the caller; HEAD is as GET."""
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
