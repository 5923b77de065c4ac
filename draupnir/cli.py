"""The operator's command `draupnir`: serve, doctor, upload-key. Only this module turns errors into exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

import draupnir
from draupnir import shared_secret, upload_keys
from draupnir.doctor.findings import Finding, Verdict
from draupnir.settings import CONFIG_PATH, Settings, SettingsError, load

if TYPE_CHECKING:
    from draupnir.identity.encryption import Cipher
    from draupnir.operations.context import SignIn

MARKS = {Verdict.OK: "✓", Verdict.WARNING: "!", Verdict.BAD: "✗"}


class _Misconfigured(click.ClickException):
    """A fault that only the operator can fix. It exits with EX_CONFIG (sysexits.h), so systemd does not restart."""

    exit_code = 78


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(draupnir.__version__, prog_name="draupnir")
def main() -> None:
    """Serve on-demand Postgres databases with preloaded data."""


@main.command()
def serve() -> None:
    """Run the daemon; started by systemd, as draupnir.service."""
    # Import the web server here, because only this command needs it.
    from draupnir.app import create_app
    from draupnir.errors import FilterMissing, HelperUnavailable
    from draupnir.helper import HelperClient
    from draupnir.identity import client_secret, encryption
    from draupnir.logs import log_to_journal
    from draupnir.operations.addresses import require_filter
    from draupnir.operations.context import Context
    from draupnir.operations.tasks import Tasks
    from draupnir.serving.listeners import ServingError, inherit
    from draupnir.serving.listeners import serve as serve_app
    from draupnir.store import Store

    log_to_journal()
    try:
        settings = load(CONFIG_PATH)
        secret = shared_secret.read(shared_secret.PATH)
        inherited = inherit()
        if not inherited.sockets:
            raise ServingError("systemd passed no socket; start it with `systemctl start draupnir.socket draupnir`.")
        if settings.enable_ip_whitelisting:
            asyncio.run(require_filter(HelperClient()))
        context = Context(
            settings, Store(settings.dsn), HelperClient(), Tasks(), cipher=_cipher(), sign_in=_sign_in(settings)
        )
        asyncio.run(serve_app(create_app(context, secret), inherited, settings))
    except (
        SettingsError,
        shared_secret.SecretError,
        client_secret.ClientSecretError,
        encryption.KeyMissing,
        ServingError,
        FilterMissing,
    ) as error:
        raise _Misconfigured(str(error)) from error
    except HelperUnavailable as error:
        raise click.ClickException(error.detail) from error


def _cipher() -> Cipher | None:
    """Return the cipher for the keys of instances, or None if its key is missing. Requests then report that."""
    from draupnir.identity import encryption

    try:
        return encryption.Cipher(encryption.read_key(os.environ.get("CREDENTIALS_DIRECTORY")))
    except encryption.KeyMissing:
        return None


def _sign_in(settings: Settings) -> SignIn | None:
    """Return the dependencies of sign-in, or None if it is not configured. Raises ClientSecretError, KeyMissing."""
    if settings.oidc is None:
        return None
    from draupnir.identity import client_secret, encryption
    from draupnir.identity.oidc import Provider
    from draupnir.operations.context import SignIn

    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    provider = Provider(settings, client_secret.read(directory))
    return SignIn(provider, encryption.Cipher(encryption.read_key(directory)))


@main.command()
@click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", help="Text for people or JSON for programs."
)
def doctor(output: str) -> None:
    """Check every part of the service, and report how to fix each problem.

    Exits with 0 if nothing is broken (warnings do not count), else with 1.
    """
    from draupnir.doctor.examination import examine

    if os.geteuid() != 0:
        raise click.ClickException("doctor needs root; run `sudo draupnir doctor`.")
    # Variables from `draupnir-client env` in this shell would connect libpq to an instance instead of the metadata.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    found = examine()
    well = all(finding.verdict is not Verdict.BAD for finding in found)
    if output == "json":
        click.echo(json.dumps({"ok": well, "findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        for finding in found:
            click.echo(line_of(finding))
    sys.exit(0 if well else 1)


def line_of(finding: Finding) -> str:
    """Format a finding as one line for people."""
    line = f"{MARKS[finding.verdict]} {finding.part}: {finding.text.rstrip('.')}"
    return f"{line}; {finding.advice}" if finding.advice else line


@main.group("upload-key")
def upload_key() -> None:
    """Manage the SSH keys that may upload backups."""


@upload_key.command("add")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True))
@click.option("--name", metavar="NAME", help="The name in the list and the journal; by default the key's comment.")
def add_key(file: str, name: str | None) -> None:
    """Allow the key in FILE (a .pub file, or - for stdin) to upload."""
    with click.open_file(file, "rb") as opened:
        content = opened.read(upload_keys.MAX_FILE_BYTES + 1)
    try:
        key = upload_keys.parse_file(content, "stdin" if file == "-" else file)
        click.echo(upload_keys.add(upload_keys.PATH, key, name))
    except upload_keys.UploadKeyError as error:
        raise click.ClickException(str(error)) from error


@upload_key.command("list")
def list_keys() -> None:
    """List the keys that may upload, with numbers."""
    try:
        for number, key in enumerate(upload_keys.read_all(upload_keys.PATH), start=1):
            click.echo(f"{number}\t{upload_keys.fingerprint(key)}")
    except upload_keys.UploadKeyError as error:
        raise click.ClickException(str(error)) from error


@upload_key.command("remove")
@click.argument("which", metavar="NUMBER|NAME")
def remove_key(which: str) -> None:
    """Remove a key by its number in the list or by its name."""
    try:
        removed = upload_keys.remove(upload_keys.PATH, which)
    except upload_keys.UploadKeyError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"removed {removed.line}")
