"""Handlers of /instances: each parses, calls one operation and answers."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draupnir.api import schemas
from draupnir.api.bodies import read_document
from draupnir.lifecycles import Event
from draupnir.models import AllowedAddress, Caller, Condition, Credentials, Instance, Observation
from draupnir.operations import addresses, events, instances, observations, retention, shapes


async def list_some(request: Request, caller: Caller) -> Response:
    """GET /instances: the caller's, with ?all=true everybody's"""
    context = request.app.state.context
    if schemas.read_flag(request.query_params, "all"):
        found = await instances.list_everybodys(context, caller)
    else:
        found = await instances.list_own(context, caller)
    observed = await observations.observe(context, found)
    hostname = context.settings.public_hostname
    data = [
        schemas.write_instance(each, observed[each.id], hostname, destroy_at=retention.destroy_at(context, each))
        for each in found
    ]
    return JSONResponse({"data": data})


async def create(request: Request, caller: Caller) -> Response:
    """POST /instances"""
    wish = schemas.read_attributes(await read_document(request), "instances", schemas.NewInstance)
    image_id = schemas.existing_id(wish.image_id, "image")
    context = request.app.state.context
    shape = wish.shape(await shapes.usual(context))
    instance, credentials = await instances.create(context, caller, image_id, shape, request.state.source)
    location = {"Location": f"/instances/{instance.id}"}
    allowed = await _allowed(request, caller, instance)
    return _answer(request, instance, Observation(Condition.RUNNING, 0), credentials, allowed, 201, location)


async def show(request: Request, caller: Caller) -> Response:
    """GET /instances/N"""
    context = request.app.state.context
    instance, credentials = await instances.get(context, caller, _id(request), request.state.source)
    observed = await observations.observe(context, [instance])
    allowed = await _allowed(request, caller, instance)
    told = await events.list_of_instance(context, caller, instance.id)
    return _answer(request, instance, observed[instance.id], credentials, allowed, told=told)


async def restore(request: Request, caller: Caller) -> Response:
    """POST /instances/N/restore; the body may be absent"""
    document = await read_document(request, absent={"data": {"attributes": {}}})
    wish = schemas.read_attributes(document, "instances", schemas.Restoration, _id(request))
    context = request.app.state.context
    instance = await retention.restore(context, caller, _id(request), wish.owner)
    observed = await observations.observe(context, [instance])
    return _answer(request, instance, observed[instance.id], None, None)


async def restart(request: Request, caller: Caller) -> Response:
    """POST /instances/N/restart; the body may be absent"""
    document = await read_document(request, absent={"data": {"attributes": {}}})
    schemas.read_attributes(document, "instances", schemas.Restart, _id(request))
    context = request.app.state.context
    instance = await instances.restart(context, caller, _id(request))
    observed = await observations.observe(context, [instance])
    return _answer(request, instance, observed[instance.id], None, None)


async def destroy(request: Request, caller: Caller) -> Response:
    """DELETE /instances/N"""
    await instances.destroy(request.app.state.context, caller, _id(request))
    return Response(status_code=204)


def _answer(
    request: Request,
    instance: Instance,
    observation: Observation,
    credentials: Credentials | None,
    allowed: list[AllowedAddress] | None,
    status: int = 200,
    headers: dict[str, str] | None = None,
    told: Sequence[Event] = (),
) -> Response:
    context = request.app.state.context
    hostname, destroy_at = context.settings.public_hostname, retention.destroy_at(context, instance)
    # A private key is in it, so no proxy or cache on the way may keep it.
    headers = {"Cache-Control": "no-store", **(headers or {})}
    data = schemas.write_instance(instance, observation, hostname, credentials, destroy_at, allowed, told)
    return JSONResponse({"data": data}, status, headers)


async def _allowed(request: Request, caller: Caller, instance: Instance) -> list[AllowedAddress] | None:
    """What its owner is told of the addresses; None where every address is admitted."""
    context = request.app.state.context
    if instance.owner != caller.name or not context.settings.enable_ip_whitelisting:
        return None
    return await addresses.list_of(context, instance)


def _id(request: Request) -> int:
    return schemas.existing_id(request.path_params["instance_id"], "instance")
