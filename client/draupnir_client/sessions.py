"""The commands for signing in and out: `authenticate`, `sign-out` and `whoami`."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

import click

from draupnir_client import config
from draupnir_client.commands import Command, Invocation, pass_invocation
from draupnir_client.config import Config
from draupnir_client.errors import ClientError, Refused, ServerUnreachable, Unauthorized
from draupnir_client.output import print_fields, print_json, say
from draupnir_client.people import Caller
from draupnir_client.sign_ins import has_browser, sign_in_elsewhere, sign_in_here


@click.command(cls=Command)
@click.option(
    "--token-file", type=click.File("rb"), help="Read the token from a file, or - for standard input, and save it."
)
@click.option("--no-browser", is_flag=True, help="Print a link for a browser on any machine, and ask for its code.")
@click.option("--force", is_flag=True, help="Sign in again, even with a valid token.")
@pass_invocation
def authenticate(invocation: Invocation, token_file: BinaryIO | None, no_browser: bool, force: bool) -> None:
    """Sign in with your browser, and save the session.

    If the server has no identity provider, or standard input is not a terminal, the command reads a token: the server's
    shared secret, which its administrator has, or one from `draupnir-client tokens create`.
    """
    settled = invocation.config()
    if token_file is not None:
        _keep_token(invocation, settled, _text_of(token_file))
    elif not invocation.has_terminal():
        # Without a terminal, standard input is the token.
        _keep_token(invocation, settled, _text_of(sys.stdin.buffer))
    elif force or not _is_signed_in(invocation, settled):
        _sign_in(invocation, settled, browser_is_here=not no_browser and has_browser())


@click.command("sign-out", cls=Command)
@click.option("--local", is_flag=True, help="Only remove the token from this machine. The session stays valid.")
@pass_invocation
def sign_out(invocation: Invocation, local: bool) -> None:
    """End the session, on the server and on this machine.

    If the server cannot be reached, nothing changes. A token that is not a session is only removed from this machine.
    """
    settled = config.load_saved(invocation.url)
    if settled.token_of:
        raise Unauthorized(
            f"The saved token is for {settled.token_of} and not for {settled.url};"
            f" sign out with `draupnir-client --url {settled.token_of} sign-out`."
        )
    if settled.token is None:
        say(f"No token is saved in {config.path()}; there is nothing to sign out of.")
    else:
        told = "The token is removed from this machine; it stays valid until it expires."
        if not local:
            told = _end_session(invocation, settled)
        config.save(token=None)
        say(told)
    if os.environ.get("DRAUPNIR_TOKEN"):
        say("DRAUPNIR_TOKEN in your environment is still used; unset it.")


@click.command(cls=Command)
@pass_invocation
def whoami(invocation: Invocation) -> None:
    """Show your current identity and its expiry."""
    settled = invocation.config()
    caller = invocation.connect(settled).get_caller()
    if invocation.wants_json:
        print_json(caller.document)
        return
    print_fields(
        [
            ("Name", caller.name),
            ("Role", caller.role),
            ("Kind", caller.kind),
            ("Scope", caller.scope),
            ("Expires at", caller.expires_at or "never"),
            ("Server", str(settled.url)),
        ]
    )


def _is_signed_in(invocation: Invocation, settled: Config) -> bool:
    if settled.token is None:
        return False
    try:
        caller = invocation.connect(settled).get_caller()
    except Unauthorized:
        return False
    say(f"You are signed in to {settled.url} as {_until(caller)} already; --force signs in again.")
    return True


def _sign_in(invocation: Invocation, settled: Config, *, browser_is_here: bool) -> None:
    old = config.load_saved(invocation.url)
    api = invocation.connect_anonymously(settled)
    try:
        made = sign_in_here(api, invocation.open_browser) if browser_is_here else sign_in_elsewhere(api)
    except Refused as refused:
        if refused.code != "sign_in_not_configured":
            raise
        say("This server has no identity provider; authenticate with its shared secret.")
        _keep_token(invocation, settled, click.prompt(f"Token for {settled.url}", hide_input=True, err=True))
        return
    config.save(url=str(settled.url), token=made.token)
    say(f"You are signed in to {settled.url} as {made.email} ({made.role}) until {made.expires_at}.")
    _tell_of_environment(made.token)
    if old.token is not None:
        _end_old_session(invocation, old)


def _end_old_session(invocation: Invocation, old: Config) -> None:
    """End the old session. A failure is only reported, because the new session is saved already."""
    api = invocation.connect(old)
    try:
        if api.get_caller().kind == "session":
            api.sign_out()
    except Unauthorized:
        return
    except ClientError as failure:
        say(
            f"Your old session is still valid: {failure} Find its ID with `draupnir-client tokens list`, and end it"
            " with `draupnir-client tokens revoke ID`."
        )


def _end_session(invocation: Invocation, settled: Config) -> str:
    """Revoke the token if it is a session, and return the message about it."""
    try:
        api = invocation.connect(settled)
        caller = api.get_caller()
        if caller.kind != "session":
            return (
                f"The token is removed from this machine, and stays valid as {_until(caller)}, because other"
                " programs may use it."
            )
        api.sign_out()
    except ServerUnreachable as failure:
        raise ServerUnreachable(
            f"{failure} You are still signed in; `draupnir-client sign-out --local` removes the token from this machine"
            " alone."
        ) from failure
    except Unauthorized:
        return f"You were signed out of {settled.url} already; the token is removed from this machine."
    return f"{caller.name} is signed out of {settled.url}; the token is revoked, and removed from this machine."


def _until(caller: Caller) -> str:
    kind = {"session": "", "named": ", by a token", "shared_secret": ", by the shared secret"}.get(caller.kind, "")
    return f"{caller.name} ({caller.role}{kind})" + (f" until {caller.expires_at}" if caller.expires_at else "")


def _keep_token(invocation: Invocation, settled: Config, text: str) -> None:
    token = config.check_token(text)
    invocation.connect(Config(settled.url, token, settled.database)).list_images()
    config.save(url=str(settled.url), token=token)
    say(f"{settled.url} accepts the token; both are saved in {config.path()}.")
    _tell_of_environment(token)


def _tell_of_environment(token: str) -> None:
    if os.environ.get("DRAUPNIR_TOKEN") not in (None, "", token):
        say("DRAUPNIR_TOKEN in your environment is another token and overrides it; unset it.")


def _text_of(file: BinaryIO) -> str:
    return file.read(64 * 1024).decode("utf-8", "replace")
