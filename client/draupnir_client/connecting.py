"""The commands that connect to an instance: `env`, `new` and `psql`."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from draupnir_client import credentials, environment
from draupnir_client.api import DraupnirAPI
from draupnir_client.arguments import INSTANCE_ID
from draupnir_client.commands import Command, Invocation, pass_invocation
from draupnir_client.config import Config
from draupnir_client.environment import DEFAULT_ROLE, Connection
from draupnir_client.errors import ClientError, ConfigError, ProgramFailed, Refused
from draupnir_client.formats import FORMATS
from draupnir_client.instances import shape_options
from draupnir_client.models import Instance
from draupnir_client.output import say


def _connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the output to a command that prints how to connect."""
    form = click.option(
        "--format",
        "form",
        type=click.Choice(list(FORMATS)),
        help="shell (the default) for eval, url for most drivers, jdbc for Java, dotenv for .env files, json for"
        " programs, service for pg_service.conf.",
    )
    database = click.option("--database", metavar="NAME", help="The database to connect to.")
    return form(database(_role_option(command)))


def _role_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option for the role to a command that connects."""
    return click.option(
        "--role", metavar="NAME", help="The Postgres role to connect as: draupnir (the default) or a role of the data."
    )(command)


@click.command(cls=Command)
@click.argument("instance_id", metavar="ID", type=INSTANCE_ID)
@_connection_options
@pass_invocation
def env(invocation: Invocation, instance_id: int, form: str | None, database: str | None, role: str | None) -> None:
    """Print how psql, a driver or an app connects.

    Use it as: eval $(draupnir-client env ID)
    """
    settled = invocation.config()
    api = invocation.connect(settled)
    instance = api.get_instance(instance_id, role=role)
    _print(invocation, form, _sign_in(settled, instance, role, database))
    _list_databases(api, instance, database or settled.database)


@click.command(cls=Command)
@shape_options
@_connection_options
@pass_invocation
def new(
    invocation: Invocation,
    sleep_after_s: int | None,
    network: str | None,
    max_bytes: int | None,
    settings: tuple[tuple[str, str], ...],
    superuser: bool,
    form: str | None,
    database: str | None,
    role: str | None,
) -> None:
    """Create an instance of the newest ready image.

    Use it as: eval $(draupnir-client new)
    """
    settled = invocation.config()
    api = invocation.connect(settled)
    ready = [image for image in api.list_images() if image.ready]
    if not ready:
        raise Refused("No image is ready; see `draupnir-client images list`.", "no_image")
    image = max(ready, key=lambda one: one.age_key)
    instance = api.create_instance(
        image.id,
        sleep_after_s=sleep_after_s,
        network=network,
        max_bytes=max_bytes,
        settings=dict(settings),
        superuser=superuser,
        role=role,
    )
    say(f"Instance {instance.id} of image {image.id}, backed up at {image.backed_up_at}, is up.")
    _print(invocation, form, _sign_in(settled, instance, role, database))
    _list_databases(api, instance, database or settled.database)


@click.command(cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("instance_id", metavar="ID", type=INSTANCE_ID)
@_role_option
@click.argument("arguments", metavar="[--] [PSQL_ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
@pass_invocation
def psql(invocation: Invocation, instance_id: int, role: str | None, arguments: tuple[str, ...]) -> None:
    """Run psql on an instance. Options of this command come before the ID."""
    if shutil.which("psql") is None:
        raise ProgramFailed("psql is not installed; install postgresql-client.")
    settled = invocation.config()
    api = invocation.connect(settled)
    instance = api.get_instance(instance_id, role=role)
    reached = _sign_in(settled, instance, role)
    inherited = {name: value for name, value in os.environ.items() if name not in environment.MISLEADING}
    # click keeps the separator, because it does not parse options after the id.
    given = arguments[1:] if arguments[:1] == ("--",) else arguments
    _list_databases(api, instance, settled.database or _database_in(given))
    # exec runs no exit handlers, so buffered output would be lost.
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe("psql", ["psql", *given], inherited | environment.variables(reached))  # noqa: S606 - no shell is the point


def _sign_in(settled: Config, instance: Instance, role: str | None, database: str | None = None) -> Connection:
    """Save the credentials of a role of an instance, and return the connection that uses them."""
    role = role or DEFAULT_ROLE
    if instance.status == "destroying":
        raise Refused(
            f"Instance {instance.id} is being destroyed; create another one: draupnir-client new", "wrong_state"
        )
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
    if instance.credentials.role != role:
        text = f"The server is too old to issue certificates for the role {role}; connect without --role."
        raise Refused(text, "role_refused")
    files = credentials.save(settled.url, instance.id, role, instance.credentials)
    # If the server names no database, the PGDATABASE of an earlier `env` is the best guess.
    chosen = database or settled.database or instance.database or os.environ.get("PGDATABASE") or "postgres"
    return environment.connection(instance, role, files, chosen)


def _database_in(arguments: Sequence[str]) -> str | None:
    """Return an argument of psql that names a database: the first one if it is not an option, or `-d`."""
    found = (each for each in arguments[:1] if not each.startswith("-"))
    return next(found, None) or next((each for each in arguments if each.startswith(("-d", "--dbname"))), None)


def _list_databases(api: DraupnirAPI, instance: Instance, chosen: str | None) -> None:
    """Print which databases have data, if the server returned `postgres` because there are several."""
    if chosen or instance.database != "postgres":
        return
    # An older server has no report, and a connection does not need it.
    with contextlib.suppress(ClientError):
        for row in api.get_image_report(instance.image_id):
            if row.code == "several_databases":
                say(f"{row.detail} {row.remedy}")


def _print(invocation: Invocation, form: str | None, reached: Connection) -> None:
    printed = FORMATS[form or ("json" if invocation.wants_json else "shell")](reached)
    try:
        printed.encode(sys.stdout.encoding)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"Your locale's encoding, {sys.stdout.encoding}, lacks a character of the role, the database or a path;"
            " use a UTF-8 locale, or --format url."
        ) from error
    click.echo(printed)
    misleading = [name for name in environment.MISLEADING if name in os.environ]
    if misleading:
        say(f"Warning: {', '.join(misleading)} in your environment may connect psql to another server; unset it.")
