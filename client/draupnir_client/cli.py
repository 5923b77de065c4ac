"""The command line of draupnir-client: its outermost group, signing in, and the user's settings."""

from __future__ import annotations

import io
import os
import sys
from typing import BinaryIO

import click

from draupnir_client import __version__, config
from draupnir_client.commands import Program, Session, pass_session
from draupnir_client.images import images
from draupnir_client.instances import env, instances, new, psql
from draupnir_client.output import print_fields, print_json, say
from draupnir_client.urls import parse_url


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="draupnir-client", message="%(prog)s %(version)s")
def program() -> None:
    """Postgres databases with your data in them, on demand."""


@program.command()
@click.option("--token-file", type=click.File("rb"), help="Read the token from a file, - for standard input.")
@pass_session
def authenticate(session: Session, token_file: BinaryIO | None) -> None:
    """Sign in: ask for a token, try it, and keep it.

    The token is the server's shared secret, which its administrator has.
    """
    settled = session.config()
    token = config.check_token(_ask_for_token(str(settled.url)) if token_file is None else _text_of(token_file))
    session.connect(config.Config(settled.url, token, settled.database)).list_images()
    config.save(url=str(settled.url), token=token)
    say(f"{settled.url} accepts the token; both are kept in {config.path()}.")
    if os.environ.get("DRAUPNIR_TOKEN") not in (None, "", token):
        say("DRAUPNIR_TOKEN in your environment is another one and wins over it; unset it.")


def _ask_for_token(server: str) -> str:
    # Without a terminal there is nobody to ask, and what is piped in is the answer.
    if sys.stdin.isatty():
        return str(click.prompt(f"Token for {server}", hide_input=True, err=True))
    return _text_of(sys.stdin.buffer)


def _text_of(file: BinaryIO) -> str:
    return file.read(64 * 1024).decode("utf-8", "replace")


@program.group("config")
def settings() -> None:
    """Your settings: url, token and database."""


@settings.command()
@pass_session
def show(session: Session) -> None:
    """Show the settings, but not the token itself."""
    settled = session.config()
    if session.wants_json:
        values = {"url": str(settled.url), "token": settled.token is not None, "database": settled.database}
        print_json({**values, "file": str(config.path())})
        return
    told = "saved for another url" if settled.token_of else "set" if settled.token else "not set"
    print_fields(
        [("url", str(settled.url)), ("token", told), ("database", settled.database), ("file", str(config.path()))]
    )


@settings.command("set")
@click.argument("key", type=click.Choice(config.KEYS))
@click.argument("value")
@pass_session
def set_value(session: Session, key: str, value: str) -> None:
    """Keep a setting: url, token or database. An empty value removes it."""
    if key == "url":
        if config.save_url(value):
            say("The token was another server's and is removed; sign in with `draupnir-client authenticate`.")
    elif key == "token" and value:
        # A token is kept with the url it is given for, so that it never goes to another.
        chosen = config.override(session.url)
        config.save(token=config.check_token(value), **({"url": str(parse_url(chosen))} if chosen else {}))
    else:
        config.save(**{key: value or None})
    say(f"Kept in {config.path()}." if value else f"Removed from {config.path()}.")


for command in (images, instances, env, new, psql):
    program.add_command(command)


def main() -> None:
    """Run the client and exit; characters that the locale cannot show are printed as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    program(prog_name="draupnir-client")
