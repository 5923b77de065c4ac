"""The command `draupnir-client events`, which shows what happened to instances and images."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from draupnir_client.commands import Command, Invocation, pass_invocation
from draupnir_client.models import Event
from draupnir_client.output import clean, print_json, print_table, say

FOLLOW_PAUSE_S = 2.0


@click.command(cls=Command)
@click.option("--all", "everybodys", is_flag=True, help="Show the events of all users. Only admins may do this.")
@click.option("--after", "after", metavar="ID", type=click.IntRange(min=0), help="Show only events after this one.")
@click.option("--follow", is_flag=True, help="Print new events until you press Ctrl+C.")
@pass_invocation
def events(invocation: Invocation, everybodys: bool, after: int | None, follow: bool) -> None:
    """Show what happened to your instances.

    The command shows the last hundred events of your instances and of your own actions.

    With --output json, --follow prints one object on each line.
    """
    api = invocation.api()
    found = api.list_events(after=after, everybodys=everybodys)
    if not follow:
        _print(invocation, found)
        return
    while True:
        for event in found:
            click.echo(json.dumps(event.document) if invocation.wants_json else clean("  ".join(event.row)))
        if found:
            after = found[-1].id
        else:
            invocation.pause(FOLLOW_PAUSE_S)
        found = api.list_events(after=after or 0, everybodys=everybodys)


def _print(invocation: Invocation, found: Sequence[Event]) -> None:
    if invocation.wants_json:
        print_json([event.document for event in found])
    elif found:
        headers = ("ID", "HAPPENED AT", "WHAT", "EVENT", "OWNER", "BY", "REASON")
        print_table(headers, [event.row for event in found])
    else:
        say("No events found.")
