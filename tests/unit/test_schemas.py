"""Laws of request and answer bodies: lenient only where docs/API.md says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draupnir import errors
from draupnir.api.requests import existing_id
from draupnir.api.schemas.images import NewImage, write_image
from draupnir.api.schemas.instances import NewInstance
from draupnir.api.schemas.requests import MOST_EXPLAINED, read_attributes
from draupnir.api.schemas.values import read_time, write_time
from draupnir.models import Failure, FinaliseStep, Image, ImageStatus, Progress
from draupnir_helper.wire import MAX_ID

NOON = datetime(2017, 5, 1, 12, tzinfo=UTC)


def envelope(attributes: object, **data: object) -> dict[str, object]:
    return {"data": {"attributes": attributes, **data}}


def refusal(document: dict[str, object], kind: str = "instances", expected_id: int | None = None) -> str:
    schema = NewInstance if kind == "instances" else NewImage
    with pytest.raises(errors.InvalidRequest) as raised:
        read_attributes(document, kind, schema, expected_id)
    return raised.value.detail


@pytest.mark.parametrize(
    "text",
    [
        "2017-05-01T12:00:00Z",
        "2017-05-01t12:00:00z",
        "2017-05-01 12:00:00Z",
        "2017-05-01T14:00:00+02:00",
        "2017-05-01T07:30:00-04:30",
        "2017-05-01T12:00:00.000Z",
        "2017-05-01T12:00:00.000000000Z",
    ],
)
def test_every_spelling_of_a_time_is_the_same_time(text: str) -> None:
    assert read_time(text) == NOON


@pytest.mark.parametrize(
    "value",
    [
        "2017-05-01T12:00:00",
        "2017-05-01",
        "2017-02-30T12:00:00Z",
        "2017-05-01T25:00:00Z",
        "2017-05-01T12:00:00+25:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-10:00",
        "1493640000",
        1493640000,
        "\uff12017-05-01T12:00:00Z",
        "2017-05-01T12:00:00Z\n",
        "yesterday",
        "",
        None,
        True,
        [],
    ],
)
def test_an_invalid_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be a time"):
        read_time(value)


@given(st.integers(0, 7_000_000_000), st.integers(0, 999_999), st.integers(-14 * 60, 14 * 60))
def test_a_time_that_was_written_reads_as_itself_to_the_second(second: int, fraction: int, offset_min: int) -> None:
    zone = timezone(timedelta(minutes=offset_min))
    time = datetime.fromtimestamp(second, zone).replace(microsecond=fraction)
    whole = time.astimezone(UTC).replace(microsecond=0)
    assert read_time(write_time(time)) == whole


@pytest.mark.parametrize("value", [1, "1", 3, "3", MAX_ID, str(MAX_ID)])
def test_an_id_is_a_number_or_its_decimal_text(value: object) -> None:
    document = envelope({"image_id": value})
    assert read_attributes(document, "instances", NewInstance).image_id == int(str(value))


@pytest.mark.parametrize(
    "value", [True, False, 1.0, 1.5, -1, 0, "0", "-1", "01", "1.0", " 1", "\u0661", "", "x", None, [], {}]
)
def test_an_invalid_id_is_refused_by_name(value: object) -> None:
    assert "`data.attributes.image_id` must be a positive integer" in refusal(envelope({"image_id": value}))


@pytest.mark.parametrize("value", ["a\x00b", "\ud800", "x\udfff"])
def test_a_text_that_postgres_cannot_store_is_refused(value: str) -> None:
    attributes = {"backed_up_at": "2017-05-01T12:00:00Z", "anonymisation_script": value}
    assert "anonymisation_script` must not contain the character U+" in refusal(envelope(attributes), "images")


def test_all_invalid_attributes_are_reported_at_once() -> None:
    detail = refusal(envelope({"backed_up_at": 1, "redy": True}), "images")
    assert "backed_up_at" in detail
    assert "anonymisation_script` is missing" in detail
    assert '"redy", which cannot be set' in detail


@pytest.mark.parametrize(
    "canary", ["short", "x" * 201, "two lines\nin one", "a NUL \0 inside", "half \ud800 a pair", 7]
)
def test_an_invalid_canary_is_refused_without_a_quotation(canary: object) -> None:
    attributes = {
        "backed_up_at": "2017-05-01T12:00:00Z",
        "anonymisation_script": "",
        "canaries": ["jane@x.org", canary],
    }
    detail = refusal(envelope(attributes), "images")
    assert "has an invalid canary, number 2" in detail
    assert str(canary) not in detail.replace("2", "")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"work_mem": "lots"}, "has work_mem = 'lots', which must be a number with a unit, such as 1TB."),
        (
            {"jit": "off"},
            "has 'jit', which cannot be set for an image or an instance; omit it, or in an instance, use SET",
        ),
        ({"statment_timeout": "5s"}, "omit it, or write statement_timeout."),
    ],
)
def test_a_refused_setting_is_named_with_what_to_do(settings: dict[str, str], fault: str) -> None:
    assert fault in refusal(envelope({"image_id": 1, "settings": settings}), "instances")


@pytest.mark.parametrize("data", [{}, {"type": "instances"}, {"type": ""}, {"type": "", "id": ""}])
def test_type_and_id_may_be_absent_or_empty(data: dict[str, object]) -> None:
    document = envelope({"image_id": 1}, **data)
    assert read_attributes(document, "instances", NewInstance).image_id == 1


@pytest.mark.parametrize("kind", ["images", "instance", 1, None, [], {}])
def test_the_wrong_type_is_refused(kind: object) -> None:
    assert '`data.type` must be "instances"' in refusal(envelope({"image_id": 1}, type=kind))


def test_the_number_of_explained_errors_is_limited() -> None:
    detail = refusal(envelope({"image_id": 1} | {f"unknown_{number}": 0 for number in range(5000)}))
    assert detail.count("cannot be set") == MOST_EXPLAINED


def test_an_id_in_the_body_is_that_of_the_path_or_refused() -> None:
    attributes = {"image_id": 1}
    for same in (4, "4"):
        assert read_attributes(envelope(attributes, id=same), "instances", NewInstance, 4).image_id == 1
    assert "make them equal" in refusal(envelope(attributes, id=5), expected_id=4)
    assert "chosen by the service" in refusal(envelope(attributes, id=5))
    assert "`data.id` must be a positive integer" in refusal(envelope(attributes, id=True), expected_id=1)


@pytest.mark.parametrize("document", [{}, {"data": None}, {"data": []}, {"data": {}}, {"data": {"attributes": 1}}])
def test_an_envelope_without_attributes_is_refused_by_name(document: dict[str, object]) -> None:
    assert refusal(document).startswith("`data")


@pytest.mark.parametrize("text", ["0", "-1", "x", "1x", "01", str(MAX_ID + 1), "9" * 5000, "\x00", "\u0661"])
def test_an_impossible_id_is_not_found(text: str) -> None:
    with pytest.raises(errors.NotFound) as raised:
        existing_id(text, "image")
    assert raised.value.title == "Image not found"


def image(status: ImageStatus) -> Image:
    return Image(
        id=1,
        status=status,
        backed_up_at=NOON,
        anonymisation_script="",
        created_at=NOON,
        updated_at=NOON,
        step=FinaliseStep.EXTRACT,
        progress=Progress("extracting", 5, 10, NOON),
        failure=Failure("script_failed", "line 3"),
        postgres_major=17,
    )


@pytest.mark.parametrize("status", list(ImageStatus))
def test_error_and_progress_are_shown_only_while_they_hold(status: ImageStatus) -> None:
    attributes = write_image(image(status), NOON + timedelta(seconds=7))["attributes"]
    assert attributes["ready"] is (status is ImageStatus.READY)
    assert (attributes["error"] is not None) is (status is ImageStatus.FAILED)
    assert (attributes["progress"] is not None) is (status is ImageStatus.FINALISING)
    assert attributes["postgres_version"] == "17"
    if status is ImageStatus.FINALISING:
        assert attributes["progress"] is not None
        assert attributes["progress"]["seconds"] == 7
