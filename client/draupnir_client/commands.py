"""The parts that all commands share: the invocation, the global options, and the handling of errors."""

from __future__ import annotations

import errno
import sys
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import httpx

from draupnir_client.api import READ_TIMEOUT_S, DraupnirAPI, open_http
from draupnir_client.config import Config, load
from draupnir_client.errors import ClientError, Interrupted, NotFound, Refused, SeveralFailed
from draupnir_client.output import say

T = TypeVar("T")


@dataclass
class Invocation:
    """One run of the client: its global options, and access to network, clock and browser."""

    output: str = "table"
    url: str | None = None
    open_http: Callable[..., httpx.Client] = open_http
    pause: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic
    has_terminal: Callable[[], bool] = lambda: sys.stdin.isatty()
    open_browser: Callable[[str], bool] = webbrowser.open

    @property
    def wants_json(self) -> bool:
        """Return whether the output is for a program."""
        return self.output == "json"

    def config(self) -> Config:
        """Return the settings: url, token and database."""
        return load(self.url)

    def connect(self, settled: Config, timeout_s: float = READ_TIMEOUT_S) -> DraupnirAPI:
        """Return the API of that server. The connection closes when the command ends."""
        return self._behind(self.open_http(settled, timeout_s))

    def connect_anonymously(self, settled: Config) -> DraupnirAPI:
        """Return the API of that server, to which no token is sent. This is for signing in."""
        return self._behind(self.open_http(settled, READ_TIMEOUT_S, anonymous=True))

    def _behind(self, http: httpx.Client) -> DraupnirAPI:
        click.get_current_context().call_on_close(http.close)
        return DraupnirAPI(http)

    def api(self) -> DraupnirAPI:
        """Return the API of the configured server."""
        return self.connect(self.config())


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def _remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None and parameter.name is not None:
        setattr(context.ensure_object(Invocation), parameter.name, value)


def _global_options() -> list[click.Parameter]:
    """Return the options that every group and command accepts, so that they work at any place on the line."""
    return [
        click.Option(
            ["--output"],
            type=click.Choice(["table", "json"]),
            help="Tables for people (the default) or JSON for programs.",
            callback=_remember,
            expose_value=False,
        ),
        click.Option(
            ["--url"],
            metavar="URL",
            help="The address of the server. The default is DRAUPNIR_URL, or the saved address.",
            callback=_remember,
            expose_value=False,
        ),
    ]


class Command(click.Command):
    """A command that also accepts the global options."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.extend(_global_options())


class Group(click.Group):
    """A group that accepts the global options, lists its commands in order of use, and has a `help` command."""

    command_class = Command

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.extend(_global_options())

        @self.command("help")
        @click.pass_context
        def show_help(context: click.Context) -> None:
            """Show this help."""
            assert context.parent is not None
            click.echo(context.parent.get_help())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of their definition, and `help` last."""
        return [*(name for name in self.commands if name != "help"), "help"]


class Program(Group):
    """The top-level group, which turns every failure into a message on stderr and an exit code."""

    group_class = Group

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; print a ClientError and exit."""
        try:
            return super().invoke(ctx)
        except ClientError as error:
            failure = error
        except (KeyboardInterrupt, click.Abort):
            failure = Interrupted("Interrupted.")
        except OSError as error:
            # click handles a closed stdout: it exits without a message.
            if error.errno == errno.EPIPE:
                raise
            failure = ClientError(f"The operating system returned an error: {error}.")
        say(f"draupnir-client: {failure}")
        raise click.exceptions.Exit(int(failure.exit_code))


def for_each(given: tuple[T, ...], act: Callable[[T], None]) -> None:
    """Call `act` for each item, continue after a failure, and report all failures at the end."""
    failures: list[ClientError] = []
    for one in dict.fromkeys(given):
        try:
            act(one)
        except (NotFound, Refused) as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise SeveralFailed(failures)
