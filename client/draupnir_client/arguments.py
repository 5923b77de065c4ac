"""Types of command-line values: times, durations, sizes, scripts, and ids that the shell completes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

import click
from click.shell_completion import CompletionItem

from draupnir_client.api import DraupnirAPI
from draupnir_client.commands import Invocation
from draupnir_client.errors import ClientError
from draupnir_client.output import NEVER, UNITS_S, clean

COMPLETION_TIMEOUT_S = 1.0


class Moment(click.ParamType):
    """A point in time or `now`, converted to RFC 3339 in UTC for the API."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the time as `2017-05-01T12:00:00Z`."""
        if value == "now":
            moment = datetime.now(UTC)
        else:
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                self.fail(f"{value!r} is not a time; write it like 2017-05-01T12:00:00Z, or now.", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} has no time zone; end it in Z for UTC, or in an offset like +02:00.", param, ctx)
        try:
            return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        except OverflowError:
            self.fail(f"{value!r} is out of range; give a year from 1 to 9999 in UTC.", param, ctx)


class Duration(click.ParamType):
    """A duration: a whole number with the unit s, m, h or d, by default seconds. `never` is 0, as in the API."""

    name = "duration"

    def __init__(self, *, may_be_never: bool = True) -> None:
        self.may_be_never = may_be_never

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds. The server checks the maximum."""
        if value == NEVER and self.may_be_never:
            return 0
        # The number has at most nine digits, so that every server can parse it.
        found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", value)
        if found is None:
            never = ", or never" if self.may_be_never else ""
            self.fail(f"{value!r} is not a duration; write it like 90s, 10m, 2h or 1d{never}.", param, ctx)
        return int(found[1]) * UNITS_S[found[2] or "s"]


class Size(click.ParamType):
    """A size in bytes, or in M, G or T, which are powers of 1024 as in the server's configuration."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes. The server checks the maximum."""
        found = re.fullmatch(r"([0-9]{1,15})([MGT]?)", value)
        if found is None:
            self.fail(f"{value!r} is not a size; write it like 500M, 20G or 1T.", param, ctx)
        return int(found[1]) << {"": 0, "M": 20, "G": 30, "T": 40}[found[2]]


class Setting(click.ParamType):
    """A setting of Postgres as `NAME=VALUE`. The value is the pair, and the server checks it."""

    name = "setting"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return the name and the value."""
        if isinstance(value, tuple):
            return value
        name, equals, given = value.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_.]+", name):
            self.fail(f"{value!r} is not a setting; write it like work_mem=64MB.", param, ctx)
        return name.lower(), given


class Script(click.ParamType):
    """A file of SQL, or `-` for standard input. The value is the text of the file."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text of the file, with line ends unchanged."""
        try:
            with click.open_file(value, "rb") as file:
                return bytes(file.read()).decode("utf-8")
        except UnicodeDecodeError as error:
            self.fail(f"{clean(value)} is not UTF-8 text ({error.reason} at byte {error.start}).", param, ctx)
        except OSError as error:
            self.fail(f"{clean(value)} cannot be read: {error.strerror}.", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete file names."""
        return [CompletionItem(incomplete, type="file")]


class ResourceId(click.IntRange):
    """An id. Shell completion queries the server, with a short timeout and without error messages."""

    def __init__(self, noun: Literal["image", "instance", "token"]) -> None:
        super().__init__(min=1)
        self.name = f"{noun} id"
        self.noun = noun

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the existing ids, each with its status, or with a token's name."""
        invocation = ctx.ensure_object(Invocation)
        try:
            with ctx.scope():
                api = invocation.connect(invocation.config(), COMPLETION_TIMEOUT_S)
                found = self._found(api)
        except ClientError:
            return []
        return [CompletionItem(number, help=clean(told)) for number, told in found if number.startswith(incomplete)]

    def _found(self, api: DraupnirAPI) -> list[tuple[str, str]]:
        if self.noun == "token":
            return [(str(token.id), token.name) for token in api.list_tokens()]
        found = api.list_images() if self.noun == "image" else api.list_instances()
        return [(str(one.id), one.status) for one in found]


IMAGE_ID = ResourceId("image")
INSTANCE_ID = ResourceId("instance")
TOKEN_ID = ResourceId("token")
