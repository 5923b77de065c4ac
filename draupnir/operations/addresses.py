"""Allowlists of instances: changes them in the metadata, applies them to the ports, and corrects differences.

With enable_ip_whitelisting, a port accepts the addresses from which its owner called the API, and those that the owner
added, each until it expires. A port of the pool accepts none. The server itself is always accepted (wire.LOOPBACK).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from draupnir.addresses import Address, Cidr, write_cidr
from draupnir.errors import AllowListsOff, DraupnirError, FilterMissing, NotFound
from draupnir.helper import Helper
from draupnir.models import AllowedAddress, Instance, Purpose
from draupnir.operations.context import Context
from draupnir_helper import wire

log = logging.getLogger(__name__)


async def require_filter(helper: Helper) -> None:
    """Raise FilterMissing if the machine cannot filter addresses. systemd itself reports no error then."""
    if not (await helper.inspect()).filters_addresses:
        raise FilterMissing(
            "enable_ip_whitelisting is on, and this machine cannot filter addresses: systemd needs the unified cgroup"
            " hierarchy and a kernel that lets it load BPF programs (CONFIG_CGROUP_BPF). Boot with both, or set"
            " enable_ip_whitelisting = false in /etc/draupnir/config.toml."
        )


async def note(context: Context, instance: Instance, client_address: Address | None) -> bool:
    """Record the owner's address, and return whether the allowlist of the port lacks it."""
    if not context.settings.enable_ip_whitelisting or client_address is None:
        return False
    ttl_s = context.settings.whitelist_ttl_s
    return await context.store.addresses.see(instance.id, ip_network(client_address), ttl_s)


async def list_of(context: Context, instance: Instance) -> list[AllowedAddress]:
    """Return the allowlist of the instance. Raises AllowListsOff."""
    _require_on(context)
    return await context.store.addresses.list_of(instance.id)


async def add(context: Context, instance: Instance, network: Cidr, ttl_s: int | None) -> AllowedAddress:
    """Add a network to the allowlist for `ttl_s`. Raises AllowListsOff, TooManyAddresses, Unavailable."""
    _require_on(context)
    ttl_s = context.settings.whitelist_ttl_s if ttl_s is None else ttl_s
    added = await context.store.addresses.add(instance.id, network, ttl_s)
    await apply(context, instance)
    return added


async def remove(context: Context, instance: Instance, network: Cidr) -> None:
    """Remove a network from the allowlist, and cut its connections.

    Raises AllowListsOff, NotFound, Unavailable.
    """
    _require_on(context)
    if not await context.store.addresses.remove(instance.id, network):
        raise NotFound(
            f"{write_cidr(network)} is not on the allowlist of instance {instance.id};"
            f" `draupnir-client instances show {instance.id}` shows its allowlist."
        )
    await apply(context, instance)


async def admitted(context: Context, instance: Instance) -> list[Cidr] | None:
    """Return the current allowlist of the port, or None for no restriction. A trial listens only on loopback."""
    if not context.settings.enable_ip_whitelisting or instance.purpose is Purpose.TRIAL:
        return None
    return [each.network for each in await context.store.addresses.list_of(instance.id)]


async def apply(context: Context, instance: Instance) -> None:
    """Apply the allowlist in the metadata to the port, if it is open."""
    before: list[Cidr] | None = []
    wanted = await admitted(context, instance)
    while True:
        await context.helper.ask(wire.AdmitAddresses(instance_id=instance.id, addresses=wanted))
        before, wanted = wanted, await admitted(context, instance)
        # Two concurrent changes may reach the helper in the wrong order; the later one notices it here.
        if before == wanted:
            return


async def reconcile_once(context: Context) -> None:
    """Correct the filter of every open port that differs from its allowlist, after an expiry or a change by hand."""
    instances = await context.store.instances.list_all()
    observed = {port.instance_id: port.addresses for port in (await context.helper.ask(wire.ObserveAddresses())).ports}
    listed = await context.store.addresses.list_all()
    for instance in instances:
        wanted: list[Cidr] | None = None
        if context.settings.enable_ip_whitelisting and instance.purpose is not Purpose.TRIAL:
            wanted = [*wire.LOOPBACK, *(each.network for each in listed.get(instance.id, []))]
        if instance.id in observed and not _same(wanted, observed[instance.id]):
            try:
                await apply(context, instance)
            except DraupnirError as error:
                log.warning("the allowlist of instance %s is unchanged: %s", instance.id, error.detail)


def _same(wanted: Iterable[Cidr] | None, found: Iterable[Cidr] | None) -> bool:
    """Return whether both lists are equivalent; systemd drops networks that others contain."""
    if wanted is None or found is None:
        return wanted is found
    return _simple(wanted) == _simple(found)


def _simple(networks: Iterable[Cidr]) -> tuple[list[IPv4Network], list[IPv6Network]]:
    listed = list(networks)
    return (
        list(collapse_addresses(each for each in listed if isinstance(each, IPv4Network))),
        list(collapse_addresses(each for each in listed if isinstance(each, IPv6Network))),
    )


def _require_on(context: Context) -> None:
    if not context.settings.enable_ip_whitelisting:
        raise AllowListsOff(
            "The ports of this server accept every address, because it has no allowlists; its operator can enable them"
            " with enable_ip_whitelisting = true in /etc/draupnir/config.toml."
        )
