"""Handlers of /instances/N/addresses, the allowlist of an instance."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draupnir import errors
from draupnir.api.bodies import quote, read_document
from draupnir.api.requests import context_of, path_id
from draupnir.api.schemas.addresses import NewAddress, write_address
from draupnir.api.schemas.requests import read_attributes
from draupnir.api.schemas.values import read_admissible
from draupnir.callers import Caller
from draupnir.operations import addresses, instances


async def list_all(request: Request, caller: Caller) -> Response:
    """GET /instances/N/addresses"""
    context = context_of(request)
    instance = await instances.reached(context, caller, path_id(request, "instance"))
    found = await addresses.list_of(context, instance)
    return JSONResponse({"data": [write_address(each) for each in found]})


async def create(request: Request, caller: Caller) -> Response:
    """POST /instances/N/addresses"""
    wish = read_attributes(await read_document(request), "addresses", NewAddress)
    context = context_of(request)
    instance = await instances.reached(context, caller, path_id(request, "instance"))
    added = await addresses.add(context, instance, wish.address, wish.expires_in)
    return JSONResponse({"data": write_address(added)}, 201)


async def destroy(request: Request, caller: Caller) -> Response:
    """DELETE /instances/N/addresses?address=A"""
    text = request.query_params.get("address", "")
    try:
        network = read_admissible(text)
    except ValueError as error:
        raise errors.InvalidRequest(f"`address` {error}, not {quote(text)}.") from error
    context = context_of(request)
    instance = await instances.reached(context, caller, path_id(request, "instance"))
    await addresses.remove(context, instance, network)
    return Response(status_code=204)
