"""Handlers of /instances/N/addresses: from where the port of an instance is reached, where the operator has lists."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draupnir import errors
from draupnir.api import schemas
from draupnir.api.bodies import quote, read_document
from draupnir.models import Caller
from draupnir.operations import addresses, instances


async def list_all(request: Request, caller: Caller) -> Response:
    """GET /instances/N/addresses"""
    context = request.app.state.context
    instance = await instances.reached(context, caller, _id(request))
    found = await addresses.list_of(context, instance)
    return JSONResponse({"data": [schemas.write_address(each) for each in found]})


async def create(request: Request, caller: Caller) -> Response:
    """POST /instances/N/addresses"""
    wish = schemas.read_attributes(await read_document(request), "addresses", schemas.NewAddress)
    context = request.app.state.context
    instance = await instances.reached(context, caller, _id(request))
    added = await addresses.add(context, instance, wish.address, wish.expires_in)
    return JSONResponse({"data": schemas.write_address(added)}, 201)


async def destroy(request: Request, caller: Caller) -> Response:
    """DELETE /instances/N/addresses?address=A"""
    text = request.query_params.get("address", "")
    try:
        network = schemas.read_admissible(text)
    except ValueError as error:
        raise errors.InvalidRequest(f"`address` {error}, not {quote(text)}.") from error
    context = request.app.state.context
    instance = await instances.reached(context, caller, _id(request))
    await addresses.remove(context, instance, network)
    return Response(status_code=204)


def _id(request: Request) -> int:
    return schemas.existing_id(request.path_params["instance_id"], "instance")
