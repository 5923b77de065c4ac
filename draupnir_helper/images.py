"""Handles the requests about images: check, change subvolumes and units, return the observed state."""

from __future__ import annotations

import grp
import json
import os
import pwd
import time

from pydantic import ValidationError

from draupnir_helper import (
    btrfs,
    files,
    job_texts,
    layout,
    manifests,
    postgres,
    storage,
    subvolumes,
    units,
    users,
    wire,
)
from draupnir_helper.errors import HelperError
from draupnir_helper.layout import Place
from draupnir_helper.notify import unescape
from draupnir_helper.quotas import Quotas
from draupnir_helper.settings import Settings
from draupnir_helper.wire import ErrorCode, JobKind, JobState

SCRIPT_NAME = "anonymisation_script.sql"
ORDER_NAME = "order.json"
_DELETION_S = 45
_DELETED = 16  # a group with less than this fraction of its limit counts as deleted
_OF_REQUEST = {"carried_over", "given", "canaries", "keep_residue"}
_OF_OPERATOR = {"shared_preload_libraries", "allowed_preload_libraries", "require_extensions"}
_PARTS = {"upload": Place.UPLOADS, "seal": Place.SEALS, "work": Place.WORK, "image": Place.IMAGES}


def create_upload(request: wire.CreateUpload, settings: Settings) -> wire.Done:
    """Create the upload subvolume with a limit, owned by the upload user."""
    user = pwd.getpwnam(layout.UPLOAD_USER)
    with storage.root() as root:
        storage.require_room(root, settings)
        with Quotas(root).made(Place.UPLOADS, request.image_id, storage.max_image_bytes(root, settings)) as group:
            subvolumes.make(root, Place.UPLOADS, request.image_id, uid=user.pw_uid, gid=user.pw_gid, group=group)
    return wire.Done()


def limit_uploads(request: wire.LimitUploads, settings: Settings) -> wire.Done:
    """Set the limit of every upload to its current size, or to the configured limit."""
    with storage.root() as root:
        quotas, limit_bytes = Quotas(root), storage.max_image_bytes(root, settings)
        held = dict(quotas.written(Place.UPLOADS))
        quotas.limit_all(
            Place.UPLOADS,
            {
                image_id: max(1, held[image_id]) if request.frozen else limit_bytes
                for image_id in subvolumes.ids(root, Place.UPLOADS)[0]
                if image_id in held
            },
        )
    return wire.Done()


def seal_upload(request: wire.SealUpload) -> wire.Sealed:
    """Snapshot the upload read-only, replacing an earlier seal; all later work reads only the seal."""
    with storage.root() as root:
        _require(root, Place.UPLOADS, request.image_id, "This image has no upload.")
        _forget_texts(root, request.image_id)
        subvolumes.discard(root, Place.SEALS, request.image_id)
        subvolumes.copy(root, Place.UPLOADS, Place.SEALS, request.image_id, request.image_id, owner=None)
        with subvolumes.opened(root, Place.SEALS, request.image_id) as seal, os.scandir(seal) as entries:
            return wire.Sealed(empty=next(entries, None) is None)


def start_extract(request: wire.StartExtract, settings: Settings) -> wire.Job:
    """Start the extract job on a new work subvolume, unless its unit exists already."""
    image_id = request.image_id
    with storage.root() as root:
        job = job_state(JobKind.EXTRACT, image_id)
        if job.state is not JobState.ABSENT:
            return job
        _require(root, Place.SEALS, image_id, "The upload is not sealed.")
        storage.require_room(root, settings)
        subvolumes.discard(root, Place.WORK, image_id)
        quotas, limit_bytes = Quotas(root), storage.max_image_bytes(root, settings)
        _await_deletion(root, quotas, image_id, limit_bytes)
        # The job has to read the uploaded files whatever their mode, so it runs as the upload user.
        uid = pwd.getpwnam(layout.UPLOAD_USER).pw_uid
        with quotas.made(Place.WORK, image_id, limit_bytes) as group:
            subvolumes.make(root, Place.WORK, image_id, uid=uid, gid=_data_gid(), group=group)
    units.start_transient(
        layout.job_unit(JobKind.EXTRACT, image_id), {"Description": f"Draupnir unpacks the upload of image {image_id}"}
    )
    return job_state(JobKind.EXTRACT, image_id)


def start_finalise(request: wire.StartFinalise, settings: Settings) -> wire.Job:
    """Give the extracted work to the image's own user and start the finalise job, unless its unit exists already."""
    image_id = request.image_id
    job = job_state(JobKind.FINALISE, image_id)
    if job.state is not JobState.ABSENT:
        return job
    if job_state(JobKind.EXTRACT, image_id).state is not JobState.SUCCEEDED:
        raise HelperError(ErrorCode.WRONG_STATE, "The upload has not been extracted.")
    if request.keep_residue and not settings.allow_residue:
        raise HelperError(ErrorCode.BAD_REQUEST, "allow_residue is off in the server's configuration.")
    require_major(request.postgres_major)
    name, uid = layout.image_user(image_id)
    users.ensure(name, uid, f"Draupnir image {image_id}")
    directory = layout.image_run_directory(image_id)
    # The group of the job can read it. Instances are in that group, too, but their sandboxes hide this directory.
    files.make_directory(directory, mode=0o750, gid=_data_gid())
    files.write(directory / SCRIPT_NAME, request.anonymisation_script, mode=0o640, gid=_data_gid())
    order = request.model_dump(include=_OF_REQUEST) | settings.model_dump(include=_OF_OPERATOR)
    with storage.root() as root, btrfs.directory(Place.WORK, root) as work:
        order["left_bytes"] = _left_bytes(root, image_id, settings)
        files.write(directory / ORDER_NAME, json.dumps(order), mode=0o640, gid=_data_gid())
        subvolumes.give(work, str(image_id), uid=uid, gid=_data_gid())
    # The unit is the only proof that the work is unchanged since the extraction, and it no longer exists.
    units.stop(layout.job_unit(JobKind.EXTRACT, image_id))
    units.start_transient(
        layout.job_unit(JobKind.FINALISE, image_id), {"Description": f"Draupnir finalises image {image_id}"}
    )
    return job_state(JobKind.FINALISE, image_id)


def inspect_job(request: wire.InspectJob) -> wire.Job:
    """Return the state of a job."""
    return job_state(request.kind, request.image_id)


def stop_jobs(request: wire.StopJobs) -> wire.Done:
    """Stop the image's jobs, and remove their results, their user and their files."""
    _stop_jobs(request.image_id)
    return wire.Done()


def publish_image(request: wire.PublishImage, settings: Settings) -> wire.Published:
    """Snapshot the finalised work read-only under the image's id, unless the image exists already."""
    image_id = request.image_id
    with storage.root() as root:
        if not subvolumes.exists(root, Place.IMAGES, image_id):
            job = job_state(JobKind.FINALISE, image_id)
            if job.state is not JobState.SUCCEEDED:
                raise HelperError(ErrorCode.WRONG_STATE, "The image has not been finalised.")
            # The report is untrusted, so the operator's list decides.
            libraries = [each for each in job.report.preload_libraries if each in settings.allowed_preload_libraries]
            facts = manifests.Facts(any_role=True, preload_libraries=libraries, proved=job.report.proved)
            manifests.write(root, Place.IMAGES, image_id, request, facts)
            job_texts.keep(root, job_texts.REPORT, image_id)
            job_texts.remove_from_work(root, job_texts.REPORT, image_id)
            subvolumes.copy(root, Place.WORK, Place.IMAGES, image_id, image_id, owner=None)
            with btrfs.directory(Place.IMAGES, root) as parent:
                os.fsync(parent)
        with subvolumes.opened(root, Place.IMAGES, image_id) as image:
            return wire.Published(uuid=btrfs.info(image).uuid)


def discard_parts(request: wire.DiscardParts) -> wire.Done:
    """Move parts of the image to the trash; refuse while a job or an instance needs them."""
    if any(job_state(kind, request.image_id).state is JobState.RUNNING for kind in JobKind):
        raise HelperError(ErrorCode.IN_USE, "A job of this image is still running.")
    with storage.root() as root:
        if "image" in request.parts:
            _require_no_instances(root, request.image_id)
        for part in request.parts:
            subvolumes.discard(root, _PARTS[part], request.image_id)
        if "image" in request.parts:
            manifests.remove(root, Place.IMAGES, request.image_id)
        if "upload" in request.parts:
            job_texts.remove(root, job_texts.ERROR, request.image_id)
    return wire.Done()


def destroy_image(request: wire.DestroyImage) -> wire.Done:
    """Move all parts of the image to the trash; refuse while it has instances."""
    image_id = request.image_id
    with storage.root() as root:
        _require_no_instances(root, image_id)
        _stop_jobs(image_id)
        for place in (Place.IMAGES, Place.WORK, Place.SEALS, Place.UPLOADS):
            subvolumes.discard(root, place, image_id)
        manifests.remove(root, Place.IMAGES, image_id)
        _forget_texts(root, image_id)
    return wire.Done()


def keep_error_text(request: wire.KeepErrorText) -> wire.Done:
    """Save the error text and the report of a failed job, before its work is discarded."""
    with storage.root() as root:
        for text in (job_texts.ERROR, job_texts.REPORT):
            job_texts.keep(root, text, request.image_id)
    return wire.Done()


def read_error_text(request: wire.ReadErrorText) -> wire.ErrorText:
    """Return the saved error text of the image."""
    with storage.root() as root:
        return wire.ErrorText(text=job_texts.read(root, job_texts.ERROR, request.image_id))


def read_report(request: wire.ReadReport) -> wire.ReportText:
    """Return the saved report of the image."""
    with storage.root() as root:
        return wire.ReportText(text=job_texts.read(root, job_texts.REPORT, request.image_id))


def job_state(kind: JobKind, image_id: int) -> wire.Job:
    """Return the state of a job from systemd, with the job's own report, validated."""
    name = layout.job_unit(kind, image_id)
    unit = units.find_one(name)
    if unit is None or unit.active == "inactive":
        return wire.Job(kind=kind, image_id=image_id, state=JobState.ABSENT, report=wire.JobReport(), result="")
    try:
        report = wire.JobReport.model_validate_json(unescape(units.service_property(name, "StatusText")))
    except ValidationError:
        report = wire.JobReport()
    return wire.Job(
        kind=kind,
        image_id=image_id,
        state=_state(unit, report),
        report=report,
        result=units.service_property(name, "Result"),
    )


def _state(unit: units.Unit, report: wire.JobReport) -> JobState:
    """Return the state of a job; SUCCEEDED only if both systemd and the job report success.

    With PrivatePIDs=, systemd 257 often does not see the job as its child. If the job has ended before systemd reads
    its exit status, systemd reports success.
    """
    match unit.active, unit.sub:
        case "active", "exited":
            return JobState.SUCCEEDED if report.finished else JobState.FAILED
        case "failed", "failed":
            return JobState.FAILED
        case _:
            return JobState.RUNNING


def require_major(major: int) -> None:
    """Raise POSTGRES_MISSING with the name of the package, unless that major's server is installed."""
    if major not in postgres.installed_majors():
        detail = f"Postgres {major} of this image is not installed; run `apt install postgresql-{major}` on the server."
        raise HelperError(ErrorCode.POSTGRES_MISSING, detail)


def _stop_jobs(image_id: int) -> None:
    units.stop(*(layout.job_unit(kind, image_id) for kind in JobKind), kill=True)
    files.remove_directory(layout.image_run_directory(image_id))
    users.remove(*layout.image_user(image_id))


def _forget_texts(root: int, image_id: int) -> None:
    for text in (job_texts.ERROR, job_texts.REPORT):
        job_texts.remove(root, text, image_id)


def _await_deletion(root: int, quotas: Quotas, image_id: int, limit_bytes: int) -> None:
    """Wait until the work of an earlier attempt is deleted, because it counts in the same limit. Raises BUSY."""
    group = layout.quota_group(Place.WORK, image_id)
    assert group is not None
    deadline = time.monotonic() + _DELETION_S
    while (quotas.written_bytes(group) or 0) > limit_bytes // _DELETED:
        if time.monotonic() > deadline:
            raise HelperError(
                ErrorCode.BUSY, "An earlier attempt on the image is still being deleted; try again later."
            )
        subvolumes.empty_trash(root)
        time.sleep(0.1)


def _left_bytes(root: int, image_id: int, settings: Settings) -> int:
    """Return what max_image_bytes leaves to the work. Extents that it shares with the upload do not count."""
    group = layout.quota_group(Place.WORK, image_id)
    assert group is not None
    return max(0, storage.max_image_bytes(root, settings) - (Quotas(root).written_bytes(group) or 0))


def _require_no_instances(root: int, image_id: int) -> None:
    image = subvolumes.find(root, Place.IMAGES, image_id)
    for instance_id in subvolumes.ids(root, Place.INSTANCES)[0] if image else []:
        instance = subvolumes.find(root, Place.INSTANCES, instance_id)
        if image and instance and instance.parent_uuid == image.uuid:
            raise HelperError(ErrorCode.IN_USE, f"Instance {instance_id} is a copy of this image; destroy it first.")


def _require(root: int, place: Place, some_id: int, detail: str) -> None:
    if not subvolumes.exists(root, place, some_id):
        raise HelperError(ErrorCode.NOT_FOUND, detail)


def _data_gid() -> int:
    return grp.getgrnam(layout.DATA_GROUP).gr_gid
