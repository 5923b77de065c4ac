"""The command line of draupnir-client: the top-level group and the `config` commands."""

from __future__ import annotations

import io
import sys

import click

from draupnir_client import __version__, config
from draupnir_client.commands import Group, Invocation, Program, pass_invocation
from draupnir_client.connecting import env, new, psql
from draupnir_client.events import events
from draupnir_client.images import images
from draupnir_client.instances import instances
from draupnir_client.output import print_fields, print_json, say
from draupnir_client.sessions import authenticate, sign_out, whoami
from draupnir_client.tokens import tokens
from draupnir_client.urls import parse_url


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="draupnir-client", message="%(prog)s %(version)s")
def program() -> None:
    """On-demand Postgres databases with preloaded data."""


@click.group("config", cls=Group)
def settings() -> None:
    """Your settings: url, token and database."""


@settings.command()
@pass_invocation
def show(invocation: Invocation) -> None:
    """Show the settings, but not the token itself."""
    settled = invocation.config()
    if invocation.wants_json:
        values = {"url": str(settled.url), "token": settled.token is not None, "database": settled.database}
        print_json({**values, "file": str(config.path())})
        return
    told = "saved for another url" if settled.token_of else "set" if settled.token else "not set"
    print_fields(
        [
            ("url", str(settled.url)),
            ("token", told),
            ("database", settled.database or "the instance's own"),
            ("file", str(config.path())),
        ]
    )


@settings.command("set")
@click.argument("key", type=click.Choice(config.KEYS))
@click.argument("value")
@pass_invocation
def set_value(invocation: Invocation, key: str, value: str) -> None:
    """Save a setting: url, token or database. An empty value removes it."""
    if key == "url":
        if config.save_url(value):
            say("The saved token belonged to another server and is removed; run `draupnir-client authenticate`.")
    elif key == "token" and value:
        # Save the url with the token, so that the token is never sent to another server.
        chosen = config.override(invocation.url)
        config.save(token=config.check_token(value), **({"url": str(parse_url(chosen))} if chosen else {}))
    else:
        config.save(**{key: value or None})
    say(f"Saved in {config.path()}." if value else f"Removed from {config.path()}.")


for command in (authenticate, whoami, sign_out, tokens, settings, images, instances, events, env, new, psql):
    program.add_command(command)


def main() -> None:
    """Run the client and exit. Characters that the locale cannot show are printed as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    program(prog_name="draupnir-client")
