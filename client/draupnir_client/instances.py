"""The commands of `draupnir-client instances`, which create, show and destroy instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from draupnir_client import credentials
from draupnir_client.arguments import IMAGE_ID, INSTANCE_ID, Duration, Setting, Size
from draupnir_client.commands import Group, Invocation, for_each, pass_invocation
from draupnir_client.errors import NotFound
from draupnir_client.models import AllowedAddress, Instance
from draupnir_client.output import format_size, format_wait, print_fields, print_json, print_table, say


def shape_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a new instance to a command."""
    sleep = click.option(
        "--sleep-after",
        "sleep_after_s",
        metavar="DURATION",
        type=Duration(),
        help="Stop Postgres after this long without connections, such as 10m, 2h or never;"
        " the next connection starts it again.",
    )
    network = click.option(
        "--network",
        type=click.Choice(["proxied", "direct"]),
        help="direct is for load tests: Postgres listens without the proxy, and never sleeps.",
    )
    ceiling = click.option(
        "--max-bytes",
        metavar="SIZE",
        type=Size(),
        help="Write limit, such as 500M or 2G; at the limit the instance becomes read-only. The default is the server's"
        " maximum.",
    )
    settings = click.option(
        "--set",
        "settings",
        metavar="NAME=VALUE",
        type=Setting(),
        multiple=True,
        help="A setting of Postgres, such as work_mem=64MB; may be repeated.",
    )
    superuser = click.option(
        "--superuser", is_flag=True, help="Be a superuser in the instance. The image has to be proved."
    )
    return sleep(network(ceiling(settings(superuser(command)))))


@click.group(cls=Group)
def instances() -> None:
    """Instances: private, writable copies of an image."""


@instances.command("list")
@click.option(
    "--all", "everybodys", is_flag=True, help="List the instances of all users, with owners. Only admins may do this."
)
@pass_invocation
def list_some(invocation: Invocation, everybodys: bool) -> None:
    """List your instances."""
    found = invocation.api().list_instances(everybodys=everybodys)
    if invocation.wants_json:
        print_json([instance.document for instance in found])
    elif found:
        _print_table(found, with_owner=everybodys)
    elif everybodys:
        say("No instances found.")
    else:
        say("You have no instances; create one with `draupnir-client new`.")


@instances.command()
@click.argument("instance_id", metavar="ID", type=INSTANCE_ID)
@pass_invocation
def show(invocation: Invocation, instance_id: int) -> None:
    """Show an instance."""
    instance = invocation.api().get_instance(instance_id)
    if invocation.wants_json:
        print_json(instance.document)
        return
    print_fields(
        [
            ("ID", str(instance.id)),
            ("Image", str(instance.image_id)),
            ("Status", instance.status),
            ("Host", instance.hostname or "-"),
            ("Port", instance.port),
            *([("Database", instance.database)] if instance.database else []),
            ("Network", instance.network or "-"),
            ("Sleeps after", format_wait(instance.sleep_after_s)),
            ("Written", f"{format_size(instance.written_bytes)} of {format_size(instance.max_bytes)}"),
            ("Owner", instance.owner or "-"),
            *([("Superuser", "yes")] if instance.superuser else []),
            ("Created at", instance.created_at),
            ("Updated at", instance.updated_at),
            *([("Stopped because", instance.stop_reason)] if instance.stop_reason else []),
            *([("Destroyed at", instance.destroy_at)] if instance.destroy_at else []),
            *([("Settings", "\n".join(instance.settings) + "\n")] if instance.settings else []),
            *_admits(instance.allowed_addresses),
            *([("Events", "\n".join(event.line for event in instance.events) + "\n")] if instance.events else []),
        ]
    )


@instances.command()
@click.argument("image_id", metavar="IMAGE_ID", type=IMAGE_ID)
@shape_options
@pass_invocation
def create(
    invocation: Invocation,
    image_id: int,
    sleep_after_s: int | None,
    network: str | None,
    max_bytes: int | None,
    settings: tuple[tuple[str, str], ...],
    superuser: bool,
) -> None:
    """Create an instance of an image."""
    instance = invocation.api().create_instance(
        image_id,
        sleep_after_s=sleep_after_s,
        network=network,
        max_bytes=max_bytes,
        settings=dict(settings),
        superuser=superuser,
    )
    if invocation.wants_json:
        print_json(instance.document)
    else:
        _print_table([instance])
    say(f"Instance {instance.id} is up; connect: eval $(draupnir-client env {instance.id}) and then psql")


@instances.command()
@click.argument("instance_ids", metavar="ID...", nargs=-1, required=True, type=INSTANCE_ID)
@pass_invocation
def destroy(invocation: Invocation, instance_ids: tuple[int, ...]) -> None:
    """Destroy instances."""
    settled = invocation.config()
    api = invocation.connect(settled)

    def destroy_one(instance_id: int) -> None:
        try:
            api.destroy_instance(instance_id)
        except NotFound:
            credentials.remove(settled.url, instance_id)
            raise
        credentials.remove(settled.url, instance_id)
        say(f"Instance {instance_id} is destroyed.")

    for_each(instance_ids, destroy_one)


@instances.command()
@click.argument("instance_ids", metavar="ID...", nargs=-1, required=True, type=INSTANCE_ID)
@pass_invocation
def restart(invocation: Invocation, instance_ids: tuple[int, ...]) -> None:
    """Restart instances, with their data.

    A stopped instance is opened again.
    """
    api = invocation.api()

    def restart_one(instance_id: int) -> None:
        api.restart_instance(instance_id)
        say(f"Instance {instance_id} has been restarted.")

    for_each(instance_ids, restart_one)


@instances.command()
@click.argument("instance_ids", metavar="ID...", nargs=-1, required=True, type=INSTANCE_ID)
@click.option("--owner", metavar="EMAIL", help="The new owner, who must have signed in once.")
@pass_invocation
def restore(invocation: Invocation, instance_ids: tuple[int, ...], owner: str | None) -> None:
    """Open closed instances again. Only admins may do this.

    The instances of a revoked user are closed, and destroyed after the grace period.
    """
    api = invocation.api()

    def restore_one(instance_id: int) -> None:
        instance = api.restore_instance(instance_id, owner=owner)
        say(f"Instance {instance.id} is open again, with its data, for {instance.owner}.")

    for_each(instance_ids, restore_one)


@instances.command()
@click.argument("instance_id", metavar="ID", type=INSTANCE_ID)
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.option(
    "--for",
    "expires_in_s",
    metavar="DURATION",
    type=Duration(may_be_never=False),
    help="Time until the entry expires, such as 8h. The server has the default, usually a day.",
)
@pass_invocation
def allow(invocation: Invocation, instance_id: int, addresses: tuple[str, ...], expires_in_s: int | None) -> None:
    """Add an address or network to the allowlist of an instance.

    This needs a server with allowlists. Write a network as 192.0.2.0/24. Creating and showing an instance adds your own
    address.
    """
    api = invocation.api()

    def allow_one(address: str) -> None:
        api.allow_address(instance_id, address, expires_in_s=expires_in_s)
        say(f"Instance {instance_id} accepts connections from {address}.")

    for_each(addresses, allow_one)


@instances.command()
@click.argument("instance_id", metavar="ID", type=INSTANCE_ID)
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@pass_invocation
def disallow(invocation: Invocation, instance_id: int, addresses: tuple[str, ...]) -> None:
    """Remove an address or network from the allowlist of an instance."""
    api = invocation.api()

    def disallow_one(address: str) -> None:
        api.disallow_address(instance_id, address)
        say(f"Instance {instance_id} no longer accepts connections from {address}.")

    for_each(addresses, disallow_one)


def _admits(allowed: tuple[AllowedAddress, ...] | None) -> list[tuple[str, str]]:
    """Return the allowlist as table fields, one line for each entry, or nothing if the server has no allowlist."""
    if allowed is None:
        return []
    lines = [f"{each.address} until {each.expires_at} ({each.origin})" for each in allowed]
    return [("Allowlist", "".join(f"{line}\n" for line in lines) or "empty")]


def _print_table(found: list[Instance], *, with_owner: bool = False) -> None:
    rows = [
        [
            *(str(one.id), str(one.image_id), one.port, one.status, format_size(one.written_bytes)),
            *(one.created_at, one.hostname),
        ]
        for one in found
    ]
    if with_owner:
        rows = [[*row, one.owner] for row, one in zip(rows, found, strict=True)]
    print_table(
        ["ID", "IMAGE", "PORT", "STATUS", "WRITTEN", "CREATED", "HOST", *(["OWNER"] if with_owner else [])], rows
    )
