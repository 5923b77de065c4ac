"""The commands that connect to an instance: `env`, `new` and `psql`."""

from __future__ import annotations

import os
import shutil
import sys

import click

from draupnir_client import credentials, environment
from draupnir_client.arguments import INSTANCE_ID
from draupnir_client.commands import Command, Invocation, pass_invocation
from draupnir_client.config import Config
from draupnir_client.errors import ProgramFailed, Refused
from draupnir_client.instances import shape_options
from draupnir_client.models import Instance
from draupnir_client.output import print_json, say


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
@shape_options
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
    # click keeps the separator, because it does not parse options after the id.
    given = arguments[1:] if arguments[:1] == ("--",) else arguments
    # exec runs no exit handlers, so buffered output would be lost.
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe("psql", ["psql", *given], inherited | values)  # noqa: S606 - no shell is the point


def _sign_in(settled: Config, instance: Instance) -> dict[str, str]:
    """Save the credentials of an instance, and return the variables that use them."""
    if instance.status == "destroying":
        raise Refused(f"Instance {instance.id} is being destroyed; create another: draupnir-client new", "wrong_state")
    if instance.status == "stopped":
        raise Refused(
            f"Instance {instance.id} is stopped. {instance.stop_reason or ''} When the disk has space again, run"
            f" draupnir-client instances restart {instance.id}",
            "wrong_state",
        )
    if instance.credentials is None:
        raise Refused(
            f"Instance {instance.id} belongs to {instance.owner or 'another user'}, and only its owner can connect;"
            " create your own: draupnir-client new",
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
        say(f"Warning: {', '.join(misleading)} in your environment may connect psql to another server; unset it.")
