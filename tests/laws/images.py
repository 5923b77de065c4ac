"""The laws of the requests about images and their jobs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from draupnir_helper import wire
from draupnir_helper.wire import ErrorCode, JobKind, JobState
from tests.laws.rig import MADE_AT, Rig

Make = Callable[[int], wire.AnyRequest]


def finalise(rig: Rig, image_id: int, script: str = "SELECT 1;") -> wire.StartFinalise:
    return wire.StartFinalise(
        image_id=image_id,
        postgres_major=rig.major,
        anonymisation_script=script,
        carried_over={},
        given={},
        canaries=[],
        keep_residue=False,
    )


def publish(rig: Rig, image_id: int) -> wire.PublishImage:
    return wire.PublishImage(image_id=image_id, postgres_major=rig.major, backed_up_at=MADE_AT, created_at=MADE_AT)


def parts(rig: Rig, image_id: int) -> set[str]:
    """Return the existing parts of an image."""
    found = rig.ask(wire.TakeInventory())
    places = {
        "upload": found.uploads,
        "seal": found.seals,
        "work": found.work,
        "image": [each.image_id for each in found.images],
        **{f"{job.kind} job": [job.image_id] for job in found.jobs if job.image_id == image_id},
    }
    return {name for name, ids in places.items() if image_id in ids}


def extracted(rig: Rig) -> int:
    """Return an image whose upload is extracted."""
    image_id = rig.image_id()
    rig.ask(wire.CreateUpload(image_id=image_id))
    rig.upload(image_id)
    rig.ask(wire.SealUpload(image_id=image_id))
    rig.ask(wire.StartExtract(image_id=image_id))
    assert rig.job(JobKind.EXTRACT, image_id).state is JobState.SUCCEEDED
    return image_id


def test_an_upload_is_made_once(rig: Rig) -> None:
    image_id = rig.image_id()
    for _ in range(2):
        rig.ask(wire.CreateUpload(image_id=image_id))
        assert parts(rig, image_id) == {"upload"}


def test_a_new_seal_replaces_the_old_one(rig: Rig) -> None:
    image_id = rig.image_id()
    rig.ask(wire.CreateUpload(image_id=image_id))
    assert rig.ask(wire.SealUpload(image_id=image_id)).empty
    rig.upload(image_id)
    assert not rig.ask(wire.SealUpload(image_id=image_id)).empty
    assert parts(rig, image_id) == {"upload", "seal"}


@pytest.mark.parametrize(
    ("request_of", "code"),
    [
        (lambda rig, image_id: wire.SealUpload(image_id=image_id), ErrorCode.NOT_FOUND),
        (lambda rig, image_id: wire.StartExtract(image_id=image_id), ErrorCode.NOT_FOUND),
        (finalise, ErrorCode.WRONG_STATE),
        (publish, ErrorCode.WRONG_STATE),
    ],
    ids=["seal", "extract", "finalise", "publish"],
)
def test_work_on_a_missing_image_is_refused_and_creates_nothing(
    rig: Rig, request_of: Callable[[Rig, int], wire.AnyRequest], code: ErrorCode
) -> None:
    image_id = rig.image_id()
    for _ in range(2):
        assert rig.refusal(request_of(rig, image_id)) is code
        assert parts(rig, image_id) == set()


@pytest.mark.parametrize(
    "request_of",
    [
        lambda image_id: wire.StopJobs(image_id=image_id),
        lambda image_id: wire.DiscardParts(image_id=image_id, parts=["upload", "seal", "work", "image"]),
        lambda image_id: wire.DestroyImage(image_id=image_id),
        lambda image_id: wire.KeepErrorText(image_id=image_id),
    ],
    ids=["stop", "discard", "destroy", "keep error text"],
)
def test_destroying_a_missing_image_succeeds(rig: Rig, request_of: Make) -> None:
    image_id = rig.image_id()
    trash = rig.ask(wire.TakeInventory()).trash
    for _ in range(2):
        rig.ask(request_of(image_id))
        assert parts(rig, image_id) == set()
    assert rig.ask(wire.TakeInventory()).trash == trash


def test_a_job_that_was_never_started_is_absent(rig: Rig) -> None:
    for kind in JobKind:
        job = rig.ask(wire.InspectJob(kind=kind, image_id=rig.image_id()))
        assert (job.state, job.report, job.result) == (JobState.ABSENT, wire.JobReport(), "")


def test_a_job_that_has_not_ended_has_no_error_text_and_no_report(rig: Rig) -> None:
    assert rig.ask(wire.ReadErrorText(image_id=rig.image_id())).text is None
    assert rig.ask(wire.ReadReport(image_id=rig.image_id())).text is None


@pytest.mark.parametrize("image_id", [-1, 0, wire.MAX_ID + 1])
def test_an_id_out_of_range_is_refused(rig: Rig, image_id: int) -> None:
    assert rig.refusal(wire.CreateUpload.model_construct(image_id=image_id)) is ErrorCode.BAD_REQUEST


def test_uploads_are_limited_and_released_again_and_again(rig: Rig) -> None:
    image_id = rig.image_id()
    rig.ask(wire.CreateUpload(image_id=image_id))
    for frozen in (True, True, False, False):
        assert rig.ask(wire.LimitUploads(frozen=frozen)) == wire.Done()
    assert parts(rig, image_id) == {"upload"}


def test_the_extract_of_an_empty_upload_fails(rig: Rig) -> None:
    image_id = rig.image_id()
    rig.ask(wire.CreateUpload(image_id=image_id))
    rig.ask(wire.SealUpload(image_id=image_id))
    rig.ask(wire.StartExtract(image_id=image_id))
    job = rig.job(JobKind.EXTRACT, image_id)
    assert (job.state, job.report.error_code) == (JobState.FAILED, "no_data_directory")
    assert rig.refusal(finalise(rig, image_id)) is ErrorCode.WRONG_STATE
    assert rig.ask(wire.StartExtract(image_id=image_id)) == job, "a job that has failed is there until it is stopped"
    rig.ask(wire.StopJobs(image_id=image_id))
    assert parts(rig, image_id) == {"upload", "seal", "work"}


def test_destroying_an_image_twice_throws_its_parts_away_once(rig: Rig) -> None:
    image_id = rig.image_id()
    rig.ask(wire.CreateUpload(image_id=image_id))
    rig.ask(wire.SealUpload(image_id=image_id))
    rig.until(lambda: rig.ask(wire.EmptyTrash()).left == 0)
    for _ in range(2):
        rig.ask(wire.DestroyImage(image_id=image_id))
        assert parts(rig, image_id) == set()
        assert rig.ask(wire.TakeInventory()).trash == 2
    rig.until(lambda: rig.ask(wire.EmptyTrash()).left == 0)
    assert rig.ask(wire.TakeInventory()).trash == 0


def test_only_the_named_parts_are_discarded(rig: Rig) -> None:
    image_id = rig.image_id()
    rig.ask(wire.CreateUpload(image_id=image_id))
    rig.ask(wire.SealUpload(image_id=image_id))
    rig.ask(wire.DiscardParts(image_id=image_id, parts=["seal"]))
    assert parts(rig, image_id) == {"upload"}


def test_an_image_is_made_step_by_step_and_each_step_is_done_once(rig: Rig) -> None:
    image_id = extracted(rig)
    assert parts(rig, image_id) == {"upload", "seal", "work", "extract job"}
    report = rig.ask(wire.StartExtract(image_id=image_id)).report
    assert (report.finished, report.postgres_major) == (True, rig.major)
    assert rig.refusal(publish(rig, image_id)) is ErrorCode.WRONG_STATE

    for _ in range(2):
        rig.ask(finalise(rig, image_id))
    assert rig.ask(wire.InspectJob(kind=JobKind.EXTRACT, image_id=image_id)).state is JobState.ABSENT
    job = rig.job(JobKind.FINALISE, image_id)
    assert (job.state, job.report.finished, job.report.proved) == (JobState.SUCCEEDED, True, True)
    assert rig.ask(finalise(rig, image_id)) == job, "a job that has ended is not started again"

    published = rig.ask(publish(rig, image_id))
    assert rig.ask(publish(rig, image_id)) == published
    (found,) = (each for each in rig.ask(wire.TakeInventory()).images if each.image_id == image_id)
    assert found == wire.ImageFound(image_id=image_id, uuid=published.uuid, read_only=True)

    rig.ask(wire.StopJobs(image_id=image_id))
    assert rig.ask(publish(rig, image_id)) == published, "what is published stays so without its job"
    rig.ask(wire.DiscardParts(image_id=image_id, parts=["upload", "seal", "work"]))
    assert parts(rig, image_id) == {"image"}


def test_a_major_that_is_not_installed_is_refused(rig: Rig) -> None:
    image_id = extracted(rig)
    missing = next(major for major in range(10, 99) if major not in rig.ask(wire.Inspect()).postgres_majors)
    request = finalise(rig, image_id).model_copy(update={"postgres_major": missing})
    assert rig.refusal(request) is ErrorCode.POSTGRES_MISSING
    assert parts(rig, image_id) == {"upload", "seal", "work", "extract job"}


def test_residue_that_the_operator_does_not_allow_is_refused(rig: Rig) -> None:
    image_id = extracted(rig)
    request = finalise(rig, image_id).model_copy(update={"keep_residue": True})
    for _ in range(2):
        assert rig.refusal(request) is ErrorCode.BAD_REQUEST
        assert parts(rig, image_id) == {"upload", "seal", "work", "extract job"}


def test_a_published_image_has_a_report_until_it_is_destroyed(rig: Rig) -> None:
    image_id = extracted(rig)
    rig.ask(finalise(rig, image_id))
    assert rig.job(JobKind.FINALISE, image_id).state is JobState.SUCCEEDED
    rig.ask(publish(rig, image_id))
    rig.ask(wire.StopJobs(image_id=image_id))
    rig.ask(wire.SealUpload(image_id=image_id))
    rig.ask(wire.KeepErrorText(image_id=image_id))
    rig.ask(wire.DiscardParts(image_id=image_id, parts=["upload", "seal", "work"]))
    assert isinstance(json.loads(rig.ask(wire.ReadReport(image_id=image_id)).text or ""), list)
    rig.ask(wire.DestroyImage(image_id=image_id))
    assert rig.ask(wire.ReadReport(image_id=image_id)).text is None


def test_the_error_text_and_the_report_are_retained_until_the_next_seal(rig: Rig) -> None:
    image_id = extracted(rig)
    rig.ask(finalise(rig, image_id, rig.failing_script()))
    assert rig.job(JobKind.FINALISE, image_id).state is JobState.FAILED
    assert rig.refusal(publish(rig, image_id)) is ErrorCode.WRONG_STATE
    for _ in range(2):
        rig.ask(wire.KeepErrorText(image_id=image_id))
        assert "nowhere" in (rig.ask(wire.ReadErrorText(image_id=image_id)).text or "")
    rig.ask(wire.StopJobs(image_id=image_id))
    rig.ask(wire.DiscardParts(image_id=image_id, parts=["seal", "work"]))
    assert rig.ask(wire.ReadErrorText(image_id=image_id)).text is not None
    assert rig.ask(wire.ReadReport(image_id=image_id)).text is not None
    rig.ask(wire.SealUpload(image_id=image_id))
    assert rig.ask(wire.ReadErrorText(image_id=image_id)).text is None
    assert rig.ask(wire.ReadReport(image_id=image_id)).text is None
