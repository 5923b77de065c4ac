"""Reads the parts of a request except its body: the context, ids in the path and flags in the query."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

from draupnir import errors
from draupnir.api.bodies import quote
from draupnir.api.schemas.values import is_decimal
from draupnir.operations.context import Context
from draupnir_helper.wire import MAX_ID


def context_of(request: Request) -> Context:
    """Return the context of the application."""
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


def path_id(request: Request, noun: str) -> int:
    """Return the id of an `image`, `instance` or `token` in the path. Raises NotFound for an impossible id."""
    return existing_id(request.path_params[f"{noun}_id"], noun)


def existing_id(value: str | int, noun: str) -> int:
    """Parse the id of an `image` or `instance`. Raises NotFound for an impossible id."""
    text = str(value)
    if not is_decimal(text) or int(text) > MAX_ID:
        error = errors.NotFound(f"{noun.capitalize()} {quote(value)} not found; list them with GET /{noun}s.")
        error.title = f"{noun.capitalize()} not found"
        raise error
    return int(text)


def read_flag(parameters: Mapping[str, str], name: str) -> bool:
    """Return a query parameter that is `true` or `false`, by default false. Raises InvalidRequest."""
    word = parameters.get(name, "false")
    if word not in ("true", "false"):
        raise errors.InvalidRequest(f"`{name}` must be true or false, not {quote(word)}.")
    return word == "true"
