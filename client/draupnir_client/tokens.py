"""The commands of `draupnir-client tokens`: the caller's sessions, and named tokens for programs."""

from __future__ import annotations

import click

from draupnir_client.arguments import TOKEN_ID, Duration
from draupnir_client.commands import Group, Invocation, for_each, pass_invocation
from draupnir_client.output import print_json, print_table, say


@click.group(cls=Group)
def tokens() -> None:
    """Tokens: your sessions, and tokens for programs."""


@tokens.command("list")
@pass_invocation
def list_own(invocation: Invocation) -> None:
    """List your sessions and tokens."""
    found = invocation.api().list_tokens()
    if invocation.wants_json:
        print_json([token.document for token in found])
    elif found:
        headers = ["ID", "NAME", "KIND", "SCOPE", "CREATED AT", "EXPIRES AT", "LAST USED AT", "IN USE HERE"]
        rows = [
            [
                str(token.id),
                token.name,
                token.kind,
                token.scope,
                token.created_at,
                token.expires_at,
                token.last_used_at or "-",
                "yes" if token.current else "no",
            ]
            for token in found
        ]
        print_table(headers, rows)
    else:
        say("You have no tokens; create one with `draupnir-client tokens create`.")


@tokens.command()
@click.argument("name", metavar="NAME")
@click.option("--read-only", is_flag=True, help="The token can read everything that you can read, and change nothing.")
@click.option(
    "--expires-in",
    "expires_in_s",
    metavar="DURATION",
    type=Duration(may_be_never=False),
    help="The lifetime, such as 12h or 30d. The default is 90d, the maximum 366d.",
)
@pass_invocation
def create(invocation: Invocation, name: str, read_only: bool, expires_in_s: int | None) -> None:
    """Create a token for a program, and print it.

    Use it as: DRAUPNIR_TOKEN=$(draupnir-client tokens create ci)
    """
    token = invocation.api().create_token(name, read_only=read_only, expires_in_s=expires_in_s)
    if invocation.wants_json:
        print_json(token.document)
    else:
        click.echo(token.secret)
    say(f"Token {token.id}, {token.name}, is valid until {token.expires_at}. It is shown only once; keep it safe.")


@tokens.command()
@click.argument("token_ids", metavar="ID...", nargs=-1, required=True, type=TOKEN_ID)
@pass_invocation
def revoke(invocation: Invocation, token_ids: tuple[int, ...]) -> None:
    """Revoke your sessions and tokens, at once."""
    api = invocation.api()

    def revoke_one(token_id: int) -> None:
        api.revoke_token(token_id)
        say(f"Token {token_id} is revoked.")

    for_each(token_ids, revoke_one)
