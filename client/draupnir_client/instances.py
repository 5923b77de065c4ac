"""The commands that make, show, reach and destroy instances: `instances …`, `new`, `env` and `psql`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from typing import Any

import click

from draupnir_client import credentials, environment
from draupnir_client.arguments import IMAGE_ID, INSTANCE_ID, Duration, Size
from draupnir_client.commands import Command, Group, Invocation, for_each, pass_invocation
from draupnir_client.config import Config
from draupnir_client.errors import NotFound, ProgramFailed, Refused
from draupnir_client.models import AllowedAddress, Instance
from draupnir_client.output import format_size, format_wait, print_fields, print_json, print_table, say


def _shape_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that makes an instance the options for how it is to live."""
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
        help="direct, for load tests: without the proxy, and never asleep.",
    )
    ceiling = click.option(
        "--max-bytes",
        metavar="SIZE",
        type=Size(),
        help="Write limit, such as 500M or 2G; at the limit the instance becomes read-only. The default is the server's"
        " maximum.",
    )
    return sleep(network(ceiling(command)))


@click.group(cls=Group)
def instances() -> None:
    """Instances: private, writable copies of an image."""


@instances.command("list")
@click.option("--all", "everybodys", is_flag=True, help="The instances of all users, with owners; for admins.")
@pass_invocation
def list_some(invocation: Invocation, everybodys: bool) -> None:
    """List your instances."""
    found = invocation.api().list_instances(everybodys=everybodys)
    if invocation.wants_json:
        print_json([instance.document for instance in found])
    elif found:
        _print_table(found, with_owner=everybodys)
    elif everybodys:
        say("There are no instances.")
    else:
        say("You have no instances; make one with `draupnir-client new`.")


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
            ("Network", instance.network or "-"),
            ("Sleeps after", format_wait(instance.sleep_after_s)),
            ("Written", f"{format_size(instance.written_bytes)} of {format_size(instance.max_bytes)}"),
            ("Owner", instance.owner or "-"),
            ("Created at", instance.created_at),
            ("Updated at", instance.updated_at),
            *([("Stopped because", instance.stop_reason)] if instance.stop_reason else []),
            *([("Destroyed at", instance.destroy_at)] if instance.destroy_at else []),
            *_admits(instance.allowed_addresses),
            *([("Events", "\n".join(event.line for event in instance.events) + "\n")] if instance.events else []),
        ]
    )


@instances.command()
@click.argument("image_id", metavar="IMAGE_ID", type=IMAGE_ID)
@_shape_options
@pass_invocation
def create(
    invocation: Invocation, image_id: int, sleep_after_s: int | None, network: str | None, max_bytes: int | None
) -> None:
    """Create an instance of an image."""
    instance = invocation.api().create_instance(
        image_id, sleep_after_s=sleep_after_s, network=network, max_bytes=max_bytes
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
    """Open closed instances again; for admins.

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
    help="Time until the entry expires, such as 8h; by default a day, or as the server is configured.",
)
@pass_invocation
def allow(invocation: Invocation, instance_id: int, addresses: tuple[str, ...], expires_in_s: int | None) -> None:
    """Add an address or network to the allowlist of an instance.

    For servers with an allowlist. A network is written as 192.0.2.0/24. Creating and showing an instance adds your own
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


@click.command(cls=Command)
@click.argument("instance_id", metavar="ID", type=INSTANCE_ID)
@pass_invocation
def env(invocation: Invocation, instance_id: int) -> None:
    """Print the line that connects psql to an instance.

    Use it as: eval $(draupnir-client env ID)
    """
    settled = invocation.config()
    api = invocation.connect(settled)
    _print_variables(invocation, _sign_in(settled, api.get_instance(instance_id)))


@click.command(cls=Command)
@_shape_options
@pass_invocation
def new(invocation: Invocation, sleep_after_s: int | None, network: str | None, max_bytes: int | None) -> None:
    """Create an instance of the newest ready image.

    Use it as: eval $(draupnir-client new)
    """
    settled = invocation.config()
    api = invocation.connect(settled)
    ready = [image for image in api.list_images() if image.ready]
    if not ready:
        raise Refused("No image is ready; see `draupnir-client images list`.", "no_image")
    image = max(ready, key=lambda one: one.age_key)
    instance = api.create_instance(image.id, sleep_after_s=sleep_after_s, network=network, max_bytes=max_bytes)
    say(f"Instance {instance.id} of image {image.id}, backed up at {image.backed_up_at}, is up.")
    _print_variables(invocation, _sign_in(settled, instance))


@click.command(cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("instance_id", metavar="ID", type=INSTANCE_ID)
@click.argument("arguments", metavar="[--] [PSQL_ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
@pass_invocation
def psql(invocation: Invocation, instance_id: int, arguments: tuple[str, ...]) -> None:
    """Run psql on an instance."""
    if shutil.which("psql") is None:
        raise ProgramFailed("psql is not installed; install postgresql-client.")
    settled = invocation.config()
    values = _sign_in(settled, invocation.connect(settled).get_instance(instance_id))
    inherited = {name: value for name, value in os.environ.items() if name not in environment.MISLEADING}
    # click leaves the separator in, as nothing after the id is its own.
    given = arguments[1:] if arguments[:1] == ("--",) else arguments
    # An exec runs no handlers, so what is buffered would be lost.
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe("psql", ["psql", *given], inherited | values)  # noqa: S606 - no shell is the point


def _sign_in(settled: Config, instance: Instance) -> dict[str, str]:
    """Keep the credentials that came with an instance, and return the variables that use them."""
    if instance.status == "destroying":
        raise Refused(f"Instance {instance.id} is being destroyed; make another: draupnir-client new", "wrong_state")
    if instance.status == "stopped":
        raise Refused(
            f"Instance {instance.id} is stopped. {instance.stop_reason or ''} When the disk has space again, run"
            f" draupnir-client instances restart {instance.id}",
            "wrong_state",
        )
    if instance.credentials is None:
        raise Refused(
            f"Instance {instance.id} is {instance.owner or 'another person'}'s, and only its owner can sign in to it;"
            " make one of your own: draupnir-client new",
            "not_the_owner",
        )
    files = credentials.save(settled.url, instance.id, instance.credentials)
    return environment.variables(instance, files, settled.database)


def _print_variables(invocation: Invocation, values: dict[str, str]) -> None:
    if invocation.wants_json:
        print_json(values)
        return
    click.echo(environment.export_line(values))
    misleading = [name for name in environment.MISLEADING if name in os.environ]
    if misleading:
        say(f"Beware: {', '.join(misleading)} in your environment may lead psql elsewhere; unset it.")


def _admits(allowed: tuple[AllowedAddress, ...] | None) -> list[tuple[str, str]]:
    """From where it is reached, a line each, where the server says so."""
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
