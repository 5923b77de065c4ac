"""The commands of `draupnir-client images`, which turn a backup into an image for instances."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from draupnir_client import credentials
from draupnir_client.api import DraupnirAPI
from draupnir_client.arguments import IMAGE_ID, Moment, Script, Setting
from draupnir_client.commands import Group, Invocation, for_each, pass_invocation
from draupnir_client.errors import ClientError, FinaliseFailed, ProgramFailed
from draupnir_client.finalising import follow, why_failed, why_not_ready
from draupnir_client.models import Image, ReportRow
from draupnir_client.output import format_size, print_fields, print_json, print_table, say


@click.group(cls=Group)
def images() -> None:
    """Images: anonymised data sets for instances."""


def _settings_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--set", "settings", metavar="NAME=VALUE", type=Setting(), multiple=True, help=text)


_canaries_option = click.option(
    "--canary-file",
    "canaries",
    type=Script(),
    help="A file of values, one a line; the finalise fails if a file of the image contains one.",
)


def _lines(canaries: str | None) -> list[str] | None:
    return None if canaries is None else [line for line in canaries.replace("\r\n", "\n").split("\n") if line]


@images.command("list")
@pass_invocation
def list_all(invocation: Invocation) -> None:
    """List the images."""
    found = invocation.api().list_images()
    if invocation.wants_json:
        print_json([image.document for image in found])
    elif found:
        _print_table(found)
    else:
        say("No images found; create one with `draupnir-client images create`.")


@images.command()
@click.argument("image_id", metavar="ID", type=IMAGE_ID)
@click.option("--report", "wants_report", is_flag=True, help="Show what the finalise found, changed and dropped.")
@pass_invocation
def show(invocation: Invocation, image_id: int, wants_report: bool) -> None:
    """Show an image with its status, error and script."""
    api = invocation.api()
    if wants_report:
        _print_report(invocation, image_id, api.get_image_report(image_id))
        return
    image = api.get_image(image_id)
    if invocation.wants_json:
        print_json(image.document)
        return
    error = why_failed(api, image)
    print_fields(
        [
            ("ID", str(image.id)),
            ("Status", image.status),
            *([("Error", error)] if error else []),
            *([("Progress", f"{image.progress.step} {image.progress.activity}")] if image.progress else []),
            ("Backed up at", image.backed_up_at),
            ("Created at", image.created_at),
            ("Updated at", image.updated_at),
            ("Postgres", image.postgres_version or "-"),
            ("Size", format_size(image.size_bytes)),
            *([("Proved", "yes" if image.proved else "no")] if image.ready and image.proved is not None else []),
            *([("Settings", "\n".join(image.settings) + "\n")] if image.settings else []),
            *([("Written by triggers", written)] if (written := ", ".join(image.tables_written_by_triggers)) else []),
            # The script has separate lines, to distinguish it from the other fields.
            ("Anonymisation script", image.anonymisation_script.rstrip("\n") + "\n"),
        ]
    )


@images.command()
@click.argument("values", metavar="BACKED_UP_AT SCRIPT", nargs=-1, type=click.Path())
@click.option("--backed-up-at", metavar="TIME", help="The time of the backup, instead of the first argument.")
@_settings_option("A setting of Postgres for the image's instances, such as work_mem=64MB; may be repeated.")
@_canaries_option
@click.option("--keep-residue", is_flag=True, help="Rewrite nothing: removed values stay in the files of the image.")
@click.pass_context
def create(
    context: click.Context,
    values: tuple[str, ...],
    backed_up_at: str | None,
    settings: tuple[tuple[str, str], ...],
    canaries: str | None,
    keep_residue: bool,
) -> None:
    """Create an image of a backup.

    BACKED_UP_AT is the time of the backup, such as 2017-05-01T12:00:00Z, or now. SCRIPT is a file of SQL, or - for
    standard input, that anonymises the data. psql runs it when the image is finalised, and the image is ready only if
    every statement succeeds.
    """
    texts = values if backed_up_at is None else (backed_up_at, *values)
    if len(texts) != 2:
        raise click.UsageError("Give the time of the backup and one script, such as: 2017-05-01T12:00:00Z anon.sql")
    moment = Moment().convert(texts[0], None, context)
    script = Script().convert(texts[1], None, context)
    invocation = context.ensure_object(Invocation)
    image = invocation.api().create_image(moment, script, dict(settings), _lines(canaries), keep_residue=keep_residue)
    _print_one(invocation, image)
    say(f"Image {image.id} awaits its upload: draupnir-client images upload {image.id} BACKUP")


@images.command()
@click.argument("image_id", metavar="ID", type=IMAGE_ID)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, readable=True))
@click.option("-i", "key", metavar="KEY", type=click.Path(exists=True, dir_okay=False), help="The ssh key to use.")
@click.option("--host", help="The server for the upload, if it is not the host of the url.")
@pass_invocation
def upload(invocation: Invocation, image_id: int, files: tuple[str, ...], key: str | None, host: str | None) -> None:
    """Upload a backup to an image with scp.

    FILE is a tarball of a data directory, or such a directory itself. Settings in ~/.ssh/config apply.
    """
    if shutil.which("scp") is None:
        raise ProgramFailed("scp is not installed; install openssh-client.")
    settled = invocation.config()
    status = invocation.connect(settled).get_image(image_id).status
    if status not in ("awaiting_upload", "failed"):
        raise ProgramFailed(f"Image {image_id} is {status} and accepts no upload; create a new image for a new backup.")
    arguments = upload_arguments(image_id, files, key, host or settled.url.host)
    # scp prints its progress to stdout, which is reserved for data.
    outcome = subprocess.run(arguments, stdout=2, check=False)
    if outcome.returncode != 0:
        raise ProgramFailed(
            f"The upload to image {image_id} failed: scp exited with status {outcome.returncode}, and its message above"
            " has the reason. The server's administrator adds missing keys with `draupnir upload-key add FILE.pub`."
        )
    say(f"The upload is complete; next: draupnir-client images finalise {image_id}")


def upload_arguments(image_id: int, files: tuple[str, ...], key: str | None, host: str) -> list[str]:
    """Return the scp command line, with absolute paths, which scp cannot mistake for an option or HOST:PATH."""
    identity = ["-i", key] if key else []
    recursive = ["-r"] if any(Path(file).is_dir() for file in files) else []
    sources = [str(Path.cwd() / file) for file in files]
    bracketed = f"[{host}]" if ":" in host else host
    return ["scp", *identity, *recursive, "--", *sources, f"upload@{bracketed}:/draupnir/image_uploads/{image_id}"]


@images.command()
@click.argument("image_id", metavar="ID", type=IMAGE_ID)
@click.option("--no-wait", is_flag=True, help="Start the work and return at once.")
@pass_invocation
def finalise(invocation: Invocation, image_id: int, no_wait: bool) -> None:
    """Recover, anonymise and test an uploaded image.

    The server does the work. It continues if this command is interrupted, and the same command joins it again.
    """
    api = invocation.api()
    image = api.finalise_image(image_id)
    if no_wait:
        _print_one(invocation, image)
        say(f"Image {image_id} is {image.status}; show its status: draupnir-client images show {image_id}")
        return
    image = follow(invocation, api, image)
    if not image.ready:
        raise FinaliseFailed(why_not_ready(api, image))
    _print_one(invocation, image)
    _mention_report(api, image_id)
    say(f"Image {image_id} is ready; create an instance: draupnir-client instances create {image_id}")


def _mention_report(api: DraupnirAPI, image_id: int) -> None:
    # An older server has no reports.
    with suppress(ClientError):
        if rows := api.get_image_report(image_id):
            say(f"The report of the image has {len(rows)} rows: draupnir-client images show {image_id} --report")


@images.command()
@click.argument("image_id", metavar="ID", type=IMAGE_ID)
@click.option("--script", type=Script(), help="A file with the new anonymisation script, or - for standard input.")
@click.option("--backed-up-at", type=Moment(), help="The time of the backup.")
@_settings_option("Change a setting of the image's instances; NAME= without a value removes the setting.")
@_canaries_option
@click.option("--keep-residue/--no-keep-residue", default=None, help="Whether removed values stay in the files.")
@pass_invocation
def update(
    invocation: Invocation,
    image_id: int,
    script: str | None,
    backed_up_at: str | None,
    settings: tuple[tuple[str, str], ...],
    canaries: str | None,
    keep_residue: bool | None,
) -> None:
    """Correct what was given with an image.

    The image must not be ready. It can then be finalised again without a second upload.
    """
    if not settings and all(each is None for each in (script, backed_up_at, canaries, keep_residue)):
        raise click.UsageError("Give --script, --backed-up-at, --set, --canary-file or --keep-residue.")
    image = invocation.api().update_image(
        image_id,
        backed_up_at=backed_up_at,
        anonymisation_script=script,
        settings={name: value or None for name, value in settings},
        canaries=_lines(canaries),
        keep_residue=keep_residue,
    )
    _print_one(invocation, image)
    say(f"Image {image.id} is changed; next: draupnir-client images finalise {image.id}")


@images.command()
@click.argument("image_ids", metavar="ID...", nargs=-1, required=True, type=IMAGE_ID)
@click.option("--cascade", is_flag=True, help="Also destroy the instances of the images.")
@pass_invocation
def destroy(invocation: Invocation, image_ids: tuple[int, ...], cascade: bool) -> None:
    """Destroy images."""
    settled = invocation.config()
    api = invocation.connect(settled)

    def destroy_one(image_id: int) -> None:
        orphans = [one.id for one in api.list_instances() if one.image_id == image_id] if cascade else []
        api.destroy_image(image_id, cascade=cascade)
        for instance_id in orphans:
            credentials.remove(settled.url, instance_id)
        say(f"Image {image_id} is destroyed.")

    for_each(image_ids, destroy_one)


def _print_one(invocation: Invocation, image: Image) -> None:
    if invocation.wants_json:
        print_json(image.document)
    else:
        _print_table([image])


def _print_report(invocation: Invocation, image_id: int, rows: list[ReportRow]) -> None:
    if invocation.wants_json:
        print_json([row._asdict() for row in rows])
    elif rows:
        for row in rows:
            print_fields([(row.code, ": ".join(text for text in (row.database, row.object) if text))])
            print_fields([("  Found", row.detail), *([("  Remedy", row.remedy)] if row.remedy else [])])
    else:
        say(f"The report of image {image_id} has no rows.")


def _print_table(found: list[Image]) -> None:
    print_table(
        ["ID", "STATUS", "BACKED UP", "READY", "SIZE", "POSTGRES"],
        [
            [
                str(image.id),
                image.status,
                image.backed_up_at,
                "yes" if image.ready else "no",
                format_size(image.size_bytes),
                image.postgres_version or "-",
            ]
            for image in found
        ],
    )
