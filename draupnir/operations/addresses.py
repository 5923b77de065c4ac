"""From where the ports of instances are reached: what the metadata say, put onto the ports and held against them.

With enable_ip_whitelisting a port admits the addresses that its owner was seen from and those that they added, each
until it expires; one of the pool admits nobody. The server itself is always admitted (wire.LOOPBACK).
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
    """Raises FilterMissing where addresses cannot be held off a port, and systemd would say nothing of it."""
    if not (await helper.inspect()).filters_addresses:
        raise FilterMissing(
            "enable_ip_whitelisting is on, and this machine cannot filter addresses: systemd needs the unified cgroup"
            " hierarchy and a kernel that lets it load BPF programs (CONFIG_CGROUP_BPF). Fix that and restart"
            " draupnir-helper, or turn enable_ip_whitelisting off in /etc/draupnir/config.toml."
        )


async def note(context: Context, instance: Instance, client_address: Address | None) -> bool:
    """Remember from where the owner was seen; whether the port does not admit that yet."""
    if not context.settings.enable_ip_whitelisting or client_address is None:
        return False
    ttl_s = context.settings.whitelist_ttl_s
    return await context.store.addresses.see(instance.id, ip_network(client_address), ttl_s)


async def list_of(context: Context, instance: Instance) -> list[AllowedAddress]:
    """What the port of the instance admits. Raises AllowListsOff."""
    _require_on(context)
    return await context.store.addresses.list_of(instance.id)


async def add(context: Context, instance: Instance, network: Cidr, ttl_s: int | None) -> AllowedAddress:
    """Admit a network, for so long. Raises AllowListsOff, TooManyAddresses, Unavailable."""
    _require_on(context)
    ttl_s = context.settings.whitelist_ttl_s if ttl_s is None else ttl_s
    added = await context.store.addresses.add(instance.id, network, ttl_s)
    await apply(context, instance)
    return added


async def remove(context: Context, instance: Instance, network: Cidr) -> None:
    """Admit a network no longer; who is connected from there is cut off.

    Raises AllowListsOff, NotFound, Unavailable.
    """
    _require_on(context)
    if not await context.store.addresses.remove(instance.id, network):
        raise NotFound(
            f"Instance {instance.id} has no {write_cidr(network)} on its list;"
            f" `draupnir-client instances show {instance.id}` lists its addresses."
        )
    await apply(context, instance)


async def admitted(context: Context, instance: Instance) -> list[Cidr] | None:
    """From where the port is to be reached just now; None is from everywhere. A trial listens on loopback alone."""
    if not context.settings.enable_ip_whitelisting or instance.purpose is Purpose.TRIAL:
        return None
    return [each.network for each in await context.store.addresses.list_of(instance.id)]


async def apply(context: Context, instance: Instance) -> None:
    """Have the port admit what the metadata say, if it is open."""
    before: list[Cidr] | None = []
    wanted = await admitted(context, instance)
    while True:
        await context.helper.ask(wire.AdmitAddresses(instance_id=instance.id, addresses=wanted))
        before, wanted = wanted, await admitted(context, instance)
        # Two who change it at once may reach the helper in the wrong order; the one who comes last sees it here.
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
    """Whether both admit the same; systemd leaves out what lies within another."""
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
            "The ports of this server admit every address; its operator may have each admit only those of its owner,"
            " by enable_ip_whitelisting = true in /etc/draupnir/config.toml."
        )
