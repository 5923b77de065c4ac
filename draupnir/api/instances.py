"""Handlers of /instances: each parses, calls one operation and answers."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from draupnir.api.bodies import read_document
from draupnir.api.requests import context_of, existing_id, path_id, read_flag
from draupnir.api.schemas.instances import NewInstance, Restart, Restoration, write_instance
from draupnir.api.schemas.requests import read_attributes
from draupnir.callers import Caller
from draupnir.lifecycles import Event
from draupnir.models import AllowedAddress, Condition, Credentials, Instance, Observation
from draupnir.operations import addresses, events, instances, observations, retention, shapes


async def list_some(request: Request, caller: Caller) -> Response:
    """GET /instances: the caller's, with ?all=true those of all users"""
    context = context_of(request)
    if read_flag(request.query_params, "all"):
        found = await instances.list_everybodys(context, caller)
    else:
        found = await instances.list_own(context, caller)
    observed = await observations.observe(context, found)
    hostname = context.settings.public_hostname
    data = [
        write_instance(each, observed[each.id], hostname, destroy_at=retention.destroy_at(context, each))
        for each in found
    ]
    return JSONResponse({"data": data})


async def create(request: Request, caller: Caller) -> Response:
    """POST /instances"""
    wish = read_attributes(await read_document(request), "instances", NewInstance)
    image_id = existing_id(wish.image_id, "image")
    context = context_of(request)
    shape = wish.shape(await shapes.usual(context))
    instance, credentials = await instances.create(
        context, caller, image_id, shape, request.state.client_address, wish.role
    )
    location = {"Location": f"/instances/{instance.id}"}
    allowed = await _allowed(request, caller, instance)
    return _answer(request, instance, Observation(Condition.RUNNING, 0), credentials, allowed, 201, location)


async def show(request: Request, caller: Caller) -> Response:
    """GET /instances/N"""
    context = context_of(request)
    instance, credentials = await instances.get(
        context,
        caller,
        path_id(request, "instance"),
        request.state.client_address,
        request.query_params.get("role"),
    )
    observed = await observations.observe(context, [instance])
    allowed = await _allowed(request, caller, instance)
    told = await events.list_of_instance(context, caller, instance.id)
    return _answer(request, instance, observed[instance.id], credentials, allowed, told=told)


async def restore(request: Request, caller: Caller) -> Response:
    """POST /instances/N/restore; the body may be absent"""
    document = await read_document(request, absent={"data": {"attributes": {}}})
    wish = read_attributes(document, "instances", Restoration, path_id(request, "instance"))
    context = context_of(request)
    instance = await retention.restore(context, caller, path_id(request, "instance"), wish.owner)
    observed = await observations.observe(context, [instance])
    return _answer(request, instance, observed[instance.id], None, None)


async def restart(request: Request, caller: Caller) -> Response:
    """POST /instances/N/restart; the body may be absent"""
    document = await read_document(request, absent={"data": {"attributes": {}}})
    read_attributes(document, "instances", Restart, path_id(request, "instance"))
    context = context_of(request)
    instance = await instances.restart(context, caller, path_id(request, "instance"))
    observed = await observations.observe(context, [instance])
    return _answer(request, instance, observed[instance.id], None, None)


async def destroy(request: Request, caller: Caller) -> Response:
    """DELETE /instances/N"""
    await instances.destroy(context_of(request), caller, path_id(request, "instance"))
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
    context = context_of(request)
    hostname, destroy_at = context.settings.public_hostname, retention.destroy_at(context, instance)
    # The answer contains a private key, so no proxy or cache may store it.
    headers = {"Cache-Control": "no-store", **(headers or {})}
    data = write_instance(instance, observation, hostname, credentials, destroy_at, allowed, told)
    return JSONResponse({"data": data}, status, headers)


async def _allowed(request: Request, caller: Caller, instance: Instance) -> list[AllowedAddress] | None:
    """Return the allowlist for its owner, or None if every address is accepted."""
    context = context_of(request)
    if instance.owner != caller.name or not context.settings.enable_ip_whitelisting:
        return None
    return await addresses.list_of(context, instance)
