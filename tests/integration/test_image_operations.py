from __future__ import annotations

import asyncio
import dataclasses
import json

import psycopg
import pytest

from draupnir.errors import (
    HelperUnavailable,
    ImageFailed,
    ImageHasInstances,
    ImageNotReady,
    InvalidRequest,
    NoRoom,
    NotFound,
    NothingUploaded,
    ResidueNotAllowed,
    WrongState,
)
from draupnir.models import Authority, Image, ImageStatus
from draupnir.operations import finalise, images, instances, jobs, reports, trials
from draupnir.operations.context import Context
from draupnir_helper import wire
from draupnir_helper.wire import ErrorCode, JobKind, JobReport, JobState
from tests.daemon import (
    BACKED_UP_AT,
    CALLER,
    SCRIPT,
    assert_lawful,
    converge,
    new_instance,
    ready_image,
    settle,
    until,
    uploaded_image,
)
from tests.fakes import FakeHelper, Probe, Refused

pytestmark = pytest.mark.anyio


async def status(context: Context, image: Image) -> ImageStatus:
    return (await images.get(context, image.id)).status


async def test_an_upload_becomes_an_image(context: Context, helper: FakeHelper, probe: Probe) -> None:
    image = await uploaded_image(context)
    assert image.status is ImageStatus.AWAITING_UPLOAD
    ready = await images.finalise(context, image.id, wait=True)
    assert (ready.status, ready.postgres_major, ready.size_bytes) == (ImageStatus.READY, 15, 1000)
    assert (ready.progress, ready.failure, ready.step) == (None, None, None)
    assert len(probe.ports) == 1
    await settle(context)
    await converge(context)
    await assert_lawful(context)
    assert await images.finalise(context, image.id, wait=True) == await images.get(context, image.id)


async def test_canaries_reach_the_job_and_are_deleted_when_the_image_is_ready(
    context: Context, helper: FakeHelper
) -> None:
    image = await images.create(context, BACKED_UP_AT, SCRIPT, canaries=["jane@corp.example"])
    helper.upload(image.id, "a backup")
    report = helper.reports[JobKind.FINALISE]
    helper.outcomes[JobKind.FINALISE] = JobState.FAILED
    helper.reports[JobKind.FINALISE] = JobReport(error_code="canary_found", error="Canaries are still in the image.")
    with pytest.raises(ImageFailed):
        await images.finalise(context, image.id, wait=True)
    assert (await images.get(context, image.id)).canaries == ("jane@corp.example",)
    await images.update(context, image.id, backed_up_at=None, anonymisation_script=None, canaries=["joe@corp.example"])
    helper.outcomes[JobKind.FINALISE] = JobState.SUCCEEDED
    helper.reports[JobKind.FINALISE] = report
    ready = await images.finalise(context, image.id, wait=True)
    asked = [request.canaries for request in helper.asked if isinstance(request, wire.StartFinalise)]
    assert asked == [["jane@corp.example"], ["joe@corp.example"]]
    assert ready.canaries == (await images.get(context, image.id)).canaries == ()
    assert "corp.example" not in repr(image)


def allowing_residue(context: Context, helper: FakeHelper) -> Context:
    """Return the context of an operator who allows it."""
    helper.allow_residue = True
    return dataclasses.replace(context, settings=context.settings.model_copy(update={"allow_residue": True}))


async def test_an_image_that_keeps_residue_needs_the_permission_of_the_operator(
    context: Context, helper: FakeHelper
) -> None:
    with pytest.raises(ResidueNotAllowed, match="allow_residue"):
        await images.create(context, BACKED_UP_AT, SCRIPT, keep_residue=True)
    image = await uploaded_image(context)
    change = {"backed_up_at": None, "anonymisation_script": None}
    with pytest.raises(ResidueNotAllowed, match="allow_residue"):
        await images.update(context, image.id, **change, keep_residue=True)
    assert not (await images.get(context, image.id)).keep_residue

    generous = allowing_residue(context, helper)
    assert (await images.update(generous, image.id, **change, keep_residue=True)).keep_residue
    assert (await images.update(generous, image.id, **change)).keep_residue
    # The operator has changed the configuration since.
    with pytest.raises(ImageFailed, match="allow_residue") as raised:
        await images.finalise(context, image.id, wait=True)
    assert raised.value.code == "residue_not_allowed"
    await images.update(context, image.id, **change, keep_residue=False)
    await images.finalise(context, image.id, wait=True)
    asked = [request.keep_residue for request in helper.asked if isinstance(request, wire.StartFinalise)]
    assert asked == [False]


@pytest.mark.parametrize("proved", [True, False])
async def test_an_image_is_proved_if_the_job_says_so(context: Context, helper: FakeHelper, *, proved: bool) -> None:
    helper.reports[JobKind.FINALISE] = helper.reports[JobKind.FINALISE].model_copy(update={"proved": proved})
    generous = allowing_residue(context, helper)
    image = await images.create(generous, BACKED_UP_AT, SCRIPT, keep_residue=not proved)
    assert not image.proved
    helper.upload(image.id)
    ready = await images.finalise(generous, image.id, wait=True)
    assert (ready.proved, ready.keep_residue) == (proved, not proved)
    assert [(it.proved, it.keep_residue) for it in await images.list_all(context)] == [(proved, not proved)]


async def test_concurrent_finalise_requests_share_one_finalise(context: Context, helper: FakeHelper) -> None:
    image = await uploaded_image(context)
    found = await asyncio.gather(*(images.finalise(context, image.id, wait=True) for _ in range(5)))
    assert {it.status for it in found} == {ImageStatus.READY}
    assert sum(isinstance(request, wire.StartExtract) for request in helper.asked) == 1


async def test_the_work_continues_when_the_caller_leaves(context: Context, helper: FakeHelper) -> None:
    image = await uploaded_image(context)
    arrived, go_on = helper.hold(wire.StartExtract)
    caller = asyncio.create_task(images.finalise(context, image.id, wait=True))
    await arrived.wait()
    caller.cancel()
    await asyncio.wait([caller])
    go_on.set()
    await settle(context)
    assert await status(context, image) is ImageStatus.READY


async def test_respond_async_returns_at_once(context: Context, helper: FakeHelper) -> None:
    image = await uploaded_image(context)
    _, go_on = helper.hold(wire.SealUpload)
    begun = await images.finalise(context, image.id, wait=False)
    assert begun.status is ImageStatus.FINALISING
    assert begun.progress is not None
    go_on.set()
    await settle(context)
    assert await status(context, image) is ImageStatus.READY


async def test_finalising_without_an_upload_leaves_the_image_unchanged(context: Context, helper: FakeHelper) -> None:
    image = await images.create(context, BACKED_UP_AT, SCRIPT)
    with pytest.raises(NothingUploaded, match=f"image_uploads/{image.id}"):
        await images.finalise(context, image.id, wait=True)
    assert await status(context, image) is ImageStatus.AWAITING_UPLOAD
    await converge(context)
    await assert_lawful(context)


async def test_finalising_without_an_upload_keeps_an_earlier_failure(context: Context, helper: FakeHelper) -> None:
    image = await uploaded_image(context)
    helper.outcomes[JobKind.EXTRACT] = JobState.FAILED
    helper.reports[JobKind.EXTRACT] = JobReport(error_code="truncated_archive", error="The archive ends too early.")
    with pytest.raises(ImageFailed):
        await images.finalise(context, image.id, wait=True)
    failure = (await images.get(context, image.id)).failure
    helper.upload(image.id, "")
    with pytest.raises(NothingUploaded):
        await images.finalise(context, image.id, wait=True)
    assert (await images.get(context, image.id)).failure == failure
    assert failure is not None


async def test_a_corrected_script_needs_no_second_upload(context: Context, helper: FakeHelper) -> None:
    image = await uploaded_image(context, "DELETE FORM users;")
    outcome = helper.reports[JobKind.FINALISE]
    helper.outcomes[JobKind.FINALISE] = JobState.FAILED
    helper.reports[JobKind.FINALISE] = JobReport(error_code="script_failed", error="line 1: syntax error")
    with pytest.raises(ImageFailed, match="line 1: syntax error") as raised:
        await images.finalise(context, image.id, wait=True)
    assert raised.value.code == "script_failed"
    failed = await images.get(context, image.id)
    assert failed.failure is not None
    assert (failed.status, failed.failure.code) == (ImageStatus.FAILED, "script_failed")
    await converge(context)
    await assert_lawful(context)

    helper.outcomes.clear()
    helper.reports[JobKind.FINALISE] = outcome
    await images.update(context, image.id, backed_up_at=None, anonymisation_script="DELETE FROM users;")
    ready = await images.finalise(context, image.id, wait=True)
    assert ready.failure is None
    assert helper.disk.images[image.id] == "a backup | DELETE FROM users;"


async def failing(context: Context, helper: FakeHelper, image: Image, text: str | None) -> None:
    helper.outcomes[JobKind.FINALISE], helper.error_text = JobState.FAILED, text
    with pytest.raises(ImageFailed):
        await images.finalise(context, image.id, wait=True)
    helper.outcomes.clear()


async def test_the_whole_error_is_kept_as_long_as_the_upload_and_nowhere_else(
    context: Context, helper: FakeHelper, caplog: pytest.LogCaptureFixture
) -> None:
    image = await uploaded_image(context)
    await failing(context, helper, image, "Failing row contains (7).")
    assert (await images.get_error(context, image.id))[1] == "Failing row contains (7)."
    await converge(context)
    assert (await images.get_error(context, image.id))[1] == "Failing row contains (7)."
    with psycopg.connect(context.settings.dsn) as connection:
        rows = connection.execute("SELECT images::text FROM images").fetchall()
    assert "Failing row" not in str(rows)
    assert "Failing row" not in caplog.text

    await failing(context, helper, image, None)
    with pytest.raises(NotFound):
        await images.get_error(context, image.id)
    await failing(context, helper, image, "another")
    await images.finalise(context, image.id, wait=True)
    await settle(context)
    assert helper.disk.error_texts == {}
    with pytest.raises(NotFound):
        await images.get_error(context, image.id)


REPORT = [{"code": "file_dropped", "database": "", "object": "a\x1bb", "detail": "Dropped.", "remedy": ""}]


async def test_an_image_has_a_report_from_its_finalise_on(context: Context, helper: FakeHelper) -> None:
    helper.report = json.dumps(REPORT)
    image = await uploaded_image(context)
    with pytest.raises(NotFound, match="has no report"):
        await reports.get(context, image.id)
    await images.finalise(context, image.id, wait=True)
    (row,) = (await reports.get(context, image.id))[1]
    assert (row.code, row.object) == ("file_dropped", "a\N{REPLACEMENT CHARACTER}b")


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"code": "x"}]', '[{"code": 1}]', "[" * 10_000])
async def test_a_report_that_a_hostile_job_wrote_is_refused(context: Context, helper: FakeHelper, text: str) -> None:
    helper.report = text
    image = await uploaded_image(context)
    await images.finalise(context, image.id, wait=True)
    with pytest.raises(NotFound, match="damaged"):
        await reports.get(context, image.id)


async def test_an_image_that_fails_its_trial_is_never_published(
    context: Context, helper: FakeHelper, probe: Probe
) -> None:
    image = await uploaded_image(context, "SELECT 'half';")
    probe.fault = "Trial boot: a connection without TLS could sign in."
    with pytest.raises(ImageFailed, match="without TLS"):
        await images.finalise(context, image.id, wait=True)
    assert await context.store.instances.list_all() == []
    await converge(context)
    await assert_lawful(context)

    probe.fault = None
    await images.update(context, image.id, backed_up_at=None, anonymisation_script="SELECT 'whole';")
    await images.finalise(context, image.id, wait=True)
    assert helper.disk.images[image.id] == "a backup | SELECT 'whole';"


async def test_a_helper_of_another_version_fails_no_image(context: Context, helper: FakeHelper) -> None:
    """An upgrade restarts the helper first; running work continues after the restart of the daemon."""

    def refuse(_: wire.AnyRequest) -> wire.Wire:
        raise Refused(ErrorCode.OTHER_PROTOCOL)

    image = await uploaded_image(context, "SELECT 1;")
    helper.answers[wire.InspectJob] = refuse
    with pytest.raises(HelperUnavailable):
        await images.finalise(context, image.id, wait=True)
    del helper.answers[wire.InspectJob]
    assert (await images.finalise(context, image.id, wait=True)).status is ImageStatus.READY
    assert helper.disk.images[image.id] == "a backup | SELECT 1;"


async def test_a_server_that_does_not_start_fails_the_trial(context: Context, helper: FakeHelper) -> None:
    def refuse(_: wire.AnyRequest) -> wire.Wire:
        raise Refused(ErrorCode.UNIT_FAILED, "exit code 1")

    helper.answers[wire.StartInstance] = refuse
    image = await uploaded_image(context)
    with pytest.raises(ImageFailed, match="exit code 1") as raised:
        await images.finalise(context, image.id, wait=True)
    assert raised.value.code == "trial_failed"
    await converge(context)
    await assert_lawful(context)


async def test_a_trial_ends_as_soon_as_its_server_has_failed(
    context: Context, helper: FakeHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probes are repeated while a server starts, but this one never starts."""
    monkeypatch.setattr(trials, "POLL_S", 0.001)
    ended = asyncio.Event()

    async def try_for_ever(port: int, authority: Authority, superuser: str) -> None:
        helper.disk.broken |= helper.disk.instances.keys()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    image = await uploaded_image(context)
    async with asyncio.timeout(5):
        with pytest.raises(
            ImageFailed, match="Postgres does not run .* `journalctl .* -u draupnir-instance-5"
        ) as raised:
            await images.finalise(dataclasses.replace(context, probe=try_for_ever), image.id, wait=True)
    assert raised.value.code == "trial_failed"
    assert ended.is_set()
    await converge(context)
    await assert_lawful(context)


async def test_a_trial_continues_without_the_helper_and_after_one_failed_start(
    context: Context, helper: FakeHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that started before its data existed is restarted."""
    monkeypatch.setattr(trials, "POLL_S", 0.001)
    looks = 0

    def observe(_: wire.AnyRequest) -> wire.Wire:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise Refused(ErrorCode.BUSY)
        broken = looks == 1
        states = [
            wire.InstanceState(instance_id=it, listening=True, postgres="failed" if broken else "active")
            for it in helper.disk.instances
        ]
        return wire.Observed(instance_units=states, written=[], room=helper.room)

    async def be_patient(port: int, authority: Authority, superuser: str) -> None:
        helper.answers[wire.ObserveInstances] = observe

        async def looked_often() -> bool:
            return looks > 4

        await until(looked_often)

    image = await uploaded_image(context)
    made = await images.finalise(dataclasses.replace(context, probe=be_patient), image.id, wait=True)
    assert made.status is ImageStatus.READY


@pytest.mark.parametrize(
    ("report", "result", "code", "says"),
    [
        (JobReport(error_code="no_room", error="The disk is full."), "exit-code", "no_room", "full"),
        (JobReport(step="extracting"), "oom-kill", "job_killed", "memory while extracting"),
        (JobReport(), "timeout", "timed_out", "exceeded its time limit"),
        (JobReport(), "signal", "job_killed", "(signal); see `journalctl -u draupnir-extract-"),
        # The job had not finished, and systemd did not see its exit status.
        (JobReport(), "success", "job_killed", "without a reason; see `journalctl -u draupnir-extract-"),
        (JobReport(error_code="script_failed", error="\x00\x1b[2J"), "exit-code", "script_failed", "\ufffd"),
    ],
)
async def test_a_job_that_fails_is_reported(
    context: Context, helper: FakeHelper, report: JobReport, result: str, code: str, says: str
) -> None:
    helper.outcomes[JobKind.EXTRACT] = JobState.FAILED
    helper.reports[JobKind.EXTRACT] = report
    helper.result = result
    image = await uploaded_image(context)
    with pytest.raises(NoRoom if code == "no_room" else ImageFailed) as raised:
        await images.finalise(context, image.id, wait=True)
    assert raised.value.code == code
    assert says in raised.value.detail
    failure = (await images.get(context, image.id)).failure
    assert failure is not None
    assert (failure.code, failure.detail) == (code, raised.value.detail)
    await converge(context)
    await assert_lawful(context)


async def test_progress_is_what_the_job_reports(
    context: Context, helper: FakeHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "POLL_S", 0.001)
    helper.outcomes[JobKind.EXTRACT] = JobState.RUNNING
    helper.reports[JobKind.EXTRACT] = JobReport(step="extr\x00acting", done_bytes=2**70, total_bytes=5)
    image = await uploaded_image(context)
    await images.finalise(context, image.id, wait=False)

    async def reported() -> bool:
        progress = (await images.get(context, image.id)).progress
        return progress is not None and progress.total_bytes is not None

    await until(reported)
    progress = (await images.get(context, image.id)).progress
    assert progress is not None
    assert (progress.activity, progress.total_bytes) == ("extr\ufffdacting", 5)
    assert progress.started_at is not None


async def test_an_outage_of_the_helper_fails_no_image(context: Context, helper: FakeHelper) -> None:
    image = await uploaded_image(context)
    helper.away = True
    with pytest.raises(HelperUnavailable):
        await images.finalise(context, image.id, wait=True)
    assert await status(context, image) is ImageStatus.FINALISING
    helper.away = False
    await converge(context)
    assert await status(context, image) is ImageStatus.READY
    await assert_lawful(context)


async def test_a_trial_waits_for_a_free_port(
    context: Context, helper: FakeHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await ready_image(context)
    taken = [await new_instance(context, first) for _ in context.settings.instance_ports]
    monkeypatch.setattr(jobs, "POLL_S", 0.001)
    image = await uploaded_image(context)
    waiting = asyncio.create_task(images.finalise(context, image.id, wait=True))

    async def waits() -> bool:
        progress = (await images.get(context, image.id)).progress
        return progress is not None and progress.activity == finalise.WAITING_FOR_PORT

    await until(waits)
    await instances.destroy(context, CALLER, taken[0].id)
    assert (await waiting).status is ImageStatus.READY


@pytest.mark.parametrize(
    "kind", [wire.SealUpload, wire.StartExtract, wire.StartFinalise, wire.PublishImage, wire.StartInstance]
)
async def test_an_image_can_be_destroyed_while_it_is_finalised(
    context: Context, helper: FakeHelper, kind: type[wire.Wire]
) -> None:
    image = await uploaded_image(context)
    arrived, go_on = helper.hold(kind)
    finalising = asyncio.create_task(images.finalise(context, image.id, wait=True))
    await arrived.wait()
    destroying = asyncio.create_task(images.destroy(context, image.id, cascade=False))

    async def meant_to_go() -> bool:
        return await status(context, image) is ImageStatus.DESTROYING

    await until(meant_to_go)
    go_on.set()
    await destroying
    with pytest.raises(WrongState, match="was destroyed"):
        await finalising
    with pytest.raises(NotFound):
        await images.get(context, image.id)
    await converge(context)
    await assert_lawful(context)
    assert not helper.disk.images


async def test_an_image_with_instances_is_destroyed_only_with_them(context: Context, helper: FakeHelper) -> None:
    image = await ready_image(context)
    instance = await new_instance(context, image)
    with pytest.raises(ImageHasInstances, match=f"instances {instance.id}"):
        await images.destroy(context, image.id, cascade=False)
    assert await status(context, image) is ImageStatus.READY
    await images.destroy(context, image.id, cascade=True)
    with pytest.raises(NotFound):
        await images.destroy(context, image.id, cascade=True)
    await converge(context)
    await assert_lawful(context)
    assert not helper.disk.images


async def test_either_an_instance_is_created_or_its_image_destroyed(context: Context, helper: FakeHelper) -> None:
    for _ in range(10):
        image = await ready_image(context)
        created, destroyed = await asyncio.gather(
            instances.create(context, CALLER, image.id),
            images.destroy(context, image.id, cascade=False),
            return_exceptions=True,
        )
        if isinstance(destroyed, BaseException):
            assert isinstance(destroyed, ImageHasInstances)
            assert not isinstance(created, BaseException)
            await images.destroy(context, image.id, cascade=True)
        else:
            assert isinstance(created, ImageNotReady | NotFound)
    await converge(context)
    await assert_lawful(context)


async def test_an_image_without_an_upload_folder_is_rolled_back(context: Context, helper: FakeHelper) -> None:
    def refuse(_: wire.AnyRequest) -> wire.Wire:
        raise Refused(ErrorCode.NO_ROOM, "The disk is full.")

    helper.answers[wire.CreateUpload] = refuse
    with pytest.raises(NoRoom):
        await images.create(context, BACKED_UP_AT, SCRIPT)
    assert await images.list_all(context) == []

    helper.away = True
    with pytest.raises(HelperUnavailable):
        await images.create(context, BACKED_UP_AT, SCRIPT)
    helper.away = False
    await converge(context)
    assert await images.list_all(context) == []
    await assert_lawful(context)


async def test_only_an_image_that_waits_or_failed_can_be_changed(context: Context) -> None:
    image = await uploaded_image(context)
    changed = await images.update(context, image.id, backed_up_at=None, anonymisation_script="SELECT 1;")
    assert (changed.anonymisation_script, changed.backed_up_at) == ("SELECT 1;", BACKED_UP_AT)
    await images.finalise(context, image.id, wait=True)
    with pytest.raises(WrongState, match="is ready"):
        await images.update(context, image.id, backed_up_at=BACKED_UP_AT, anonymisation_script=None)


@pytest.mark.parametrize("script", ["a\0b", "\ud800", "é" * 2**19 + "x"])
async def test_a_script_that_postgres_cannot_store_is_refused(context: Context, script: str) -> None:
    with pytest.raises(InvalidRequest, match="anonymisation_script"):
        await images.create(context, BACKED_UP_AT, script)
    image = await images.create(context, BACKED_UP_AT, "")
    with pytest.raises(InvalidRequest, match="anonymisation_script"):
        await images.update(context, image.id, backed_up_at=None, anonymisation_script=script)


@pytest.mark.parametrize("image_id", [0, -1, 7, 2**31, 2**63, 2**80])
async def test_a_missing_image_is_not_found(context: Context, image_id: int) -> None:
    asked = [
        images.get(context, image_id),
        images.finalise(context, image_id, wait=True),
        images.destroy(context, image_id, cascade=True),
        images.update(context, image_id, backed_up_at=None, anonymisation_script="x"),
        instances.create(context, CALLER, image_id),
    ]
    for each in asked:
        with pytest.raises(NotFound):
            await each


async def test_an_unexpected_error_in_a_finalise_fails_its_image(context: Context, helper: FakeHelper) -> None:
    def break_down(request: wire.AnyRequest) -> wire.Wire:
        raise RuntimeError("a bug")

    image = await uploaded_image(context)
    helper.answers[wire.PublishImage] = break_down
    with pytest.raises(ImageFailed, match="journalctl -u draupnir"):
        await images.finalise(context, image.id, wait=True)
    assert (await images.get(context, image.id)).status is ImageStatus.FAILED
    await settle(context)
    await converge(context)
    await assert_lawful(context)
