"""The command-line client against the real application; only the helper is a fake."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click.testing
import pytest
from starlette.testclient import TestClient

from draupnir.app import create_app
from draupnir.operations.context import Context
from draupnir.operations.tasks import Tasks
from draupnir.settings import Settings
from draupnir.store import Store
from draupnir_client import errors
from draupnir_client.api import DraupnirAPI
from draupnir_client.cli import program
from draupnir_client.commands import Invocation
from draupnir_client.models import Image, Instance
from draupnir_helper.wire import JobKind, JobReport, JobState
from tests.fakes import CIPHER, FakeHelper, Probe

SECRET = "a-secret-for-tests-only"
SCRIPT = "\\c my_db\nDELETE FROM secret_tokens;"
BACKED_UP_AT = "2017-05-01T12:00:00Z"


@pytest.fixture
def http(settings: Settings, helper: FakeHelper, probe: Probe) -> Iterator[TestClient]:
    """Provide the application with a separate store, which its lifespan opens in the test client's event loop."""
    app = create_app(
        Context(settings, Store(settings.dsn), helper, Tasks(), probe, helper.wake, cipher=CIPHER), SECRET.encode()
    )
    with TestClient(app, headers={"Authorization": f"Bearer {SECRET}"}) as client:
        yield client


@pytest.fixture
def api(http: TestClient) -> DraupnirAPI:
    return DraupnirAPI(http)


def finalised(api: DraupnirAPI, image: Image) -> Image:
    image = api.finalise_image(image.id)
    deadline = time.monotonic() + 30
    while image.status == "finalising":
        assert time.monotonic() < deadline
        image = api.get_image(image.id)
    return image


def ready_image(api: DraupnirAPI, helper: FakeHelper) -> Image:
    image = api.create_image(BACKED_UP_AT, SCRIPT)
    helper.upload(image.id)
    return finalised(api, image)


def test_an_image_is_read_as_it_was_written(api: DraupnirAPI, helper: FakeHelper) -> None:
    assert api.list_images() == []
    image = api.create_image(BACKED_UP_AT, SCRIPT)
    assert (image.status, image.ready) == ("awaiting_upload", False)
    assert (image.backed_up_at, image.anonymisation_script) == (BACKED_UP_AT, SCRIPT)
    assert (image.postgres_version, image.size_bytes, image.error, image.progress) == (None, None, None, None)
    assert api.get_image(image.id) == image
    assert api.list_images() == [image]

    changed = api.update_image(image.id, backed_up_at="2020-02-29T00:00:00Z")
    assert (changed.backed_up_at, changed.anonymisation_script) == ("2020-02-29T00:00:00Z", SCRIPT)
    changed = api.update_image(image.id, anonymisation_script="SELECT 'ö';")
    assert (changed.backed_up_at, changed.anonymisation_script) == ("2020-02-29T00:00:00Z", "SELECT 'ö';")

    helper.upload(image.id)
    helper.reports[JobKind.FINALISE] = JobReport(size_bytes=1000, trigger_tables=["my_db.audit.log"])
    started = api.finalise_image(image.id)
    assert started.status == "finalising"
    assert started.progress is not None
    assert started.progress.step == "seal"
    ready = finalised(api, started)
    assert (ready.status, ready.ready, ready.postgres_version, ready.size_bytes) == ("ready", True, "15", 1000)
    assert ready.tables_written_by_triggers == ("my_db.audit.log",)
    assert api.finalise_image(image.id) == ready

    api.destroy_image(image.id)
    assert api.list_images() == []


def attributes_of(instance: Instance) -> dict[str, object]:
    found = instance.document["attributes"]
    assert isinstance(found, dict)
    return found


def test_an_instance_is_read_as_it_was_written(api: DraupnirAPI, helper: FakeHelper) -> None:
    image = ready_image(api, helper)
    assert api.list_instances() == []
    instance = api.create_instance(image.id)
    assert (instance.image_id, instance.status, instance.owner) == (image.id, "running", "upload")
    assert (instance.hostname, 20000 <= int(instance.port) < 20010) == ("db.example.org", True)
    shown, (listed,) = api.get_instance(instance.id), api.list_instances()
    assert instance.credentials is not None
    assert shown.credentials is not None
    assert listed.credentials is None
    assert [event.name for event in shown.events] == ["created", "started"]
    assert [event for event in api.list_events() if event.subject == f"instance {instance.id}"] == list(shown.events)
    assert api.list_events(after=shown.events[-1].id) == []
    without_events = {name: value for name, value in attributes_of(shown).items() if name != "events"}
    assert attributes_of(instance) == without_events == attributes_of(listed)
    for credentials in (instance.credentials, shown.credentials):
        assert credentials.ca_certificate.startswith("-----BEGIN CERTIFICATE-----\n")
        assert credentials.client_certificate.startswith("-----BEGIN CERTIFICATE-----\n")
        assert "PRIVATE KEY-----\n" in credentials.client_key
    api.destroy_instance(instance.id)
    assert api.list_instances() == []


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({}, (1800, "proxied")),
        ({"sleep_after_s": 90}, (90, "proxied")),
        ({"sleep_after_s": 0, "network": "proxied"}, (0, "proxied")),
        ({"network": "direct"}, (0, "direct")),
        ({"network": "direct", "sleep_after_s": 90}, (0, "direct")),
    ],
)
def test_an_instance_has_the_requested_shape(
    api: DraupnirAPI, helper: FakeHelper, asked: dict[str, Any], got: tuple[int, str]
) -> None:
    created = api.create_instance(ready_image(api, helper).id, **asked)
    for instance in (created, api.get_instance(created.id), *api.list_instances()):
        assert (instance.sleep_after_s, instance.network) == got


def test_an_instance_that_sleeps_is_seen_asleep(api: DraupnirAPI, helper: FakeHelper) -> None:
    instance = api.create_instance(ready_image(api, helper).id)
    helper.disk.asleep.add(instance.id)
    assert api.get_instance(instance.id).status == "asleep"


@dataclass
class There:
    """The resources during refusals: an image with an instance, and an image that awaits its upload."""

    api: DraupnirAPI
    ready: int
    waiting: int


NOT_THERE = 2**26 - 1


@pytest.mark.parametrize(
    "ask",
    [
        lambda api: api.get_image(NOT_THERE),
        lambda api: api.update_image(NOT_THERE, anonymisation_script=""),
        lambda api: api.finalise_image(NOT_THERE),
        lambda api: api.destroy_image(NOT_THERE),
        lambda api: api.create_instance(NOT_THERE),
        lambda api: api.get_instance(NOT_THERE),
        lambda api: api.destroy_instance(NOT_THERE),
        lambda api: api.get_image(2**80),
    ],
)
def test_a_missing_resource_is_not_found(api: DraupnirAPI, ask: Callable[[DraupnirAPI], object]) -> None:
    with pytest.raises(errors.NotFound):
        ask(api)


@pytest.mark.parametrize(
    ("code", "ask"),
    [
        ("invalid_request", lambda it: it.api.create_image("yesterday", "")),
        ("body_too_large", lambda it: it.api.create_image(BACKED_UP_AT, "x" * 2**21)),
        ("invalid_request", lambda it: it.api.create_instance(it.ready, sleep_after_s=10**9)),
        ("invalid_request", lambda it: it.api.create_instance(it.ready, network="host")),
        ("image_not_ready", lambda it: it.api.create_instance(it.waiting)),
        ("wrong_state", lambda it: it.api.update_image(it.ready, anonymisation_script="")),
        ("image_has_instances", lambda it: it.api.destroy_image(it.ready)),
    ],
)
def test_a_refusal_keeps_its_code(
    api: DraupnirAPI, helper: FakeHelper, code: str, ask: Callable[[There], object]
) -> None:
    ready = ready_image(api, helper).id
    api.create_instance(ready)
    with pytest.raises(errors.Refused) as caught:
        ask(There(api, ready, api.create_image(BACKED_UP_AT, SCRIPT).id))
    assert caught.value.code == code


def test_cascade_destroys_the_instances(api: DraupnirAPI, helper: FakeHelper) -> None:
    image = ready_image(api, helper)
    api.create_instance(image.id)
    api.destroy_image(image.id, cascade=True)
    assert (api.list_images(), api.list_instances()) == ([], [])


def test_an_unknown_token_is_reported(http: TestClient) -> None:
    http.headers["Authorization"] = "Bearer wrong"
    with pytest.raises(errors.Unauthorized, match="authenticate"):
        DraupnirAPI(http).list_images()


def test_an_unreachable_helper_is_reported_as_unavailable(api: DraupnirAPI, helper: FakeHelper) -> None:
    image = ready_image(api, helper)
    helper.away = True
    with pytest.raises(errors.ServerUnreachable):
        api.create_instance(image.id)


class Shell:
    """Runs lines of the client against the application."""

    def __init__(self, http: TestClient) -> None:
        self.http = http

    def __call__(self, line: str, given: str | None = None) -> click.testing.Result:
        session = Invocation(open_http=lambda settled, timeout_s: self.http, pause=lambda seconds: time.sleep(0.001))
        runner = click.testing.CliRunner(mix_stderr=False)
        return runner.invoke(program, line.split(), input=given, obj=session, catch_exceptions=False)


@pytest.fixture
def shell(http: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("DRAUPNIR_URL", "DRAUPNIR_TOKEN", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)
    # The command closes its connection at the end, but the application has to keep running.
    monkeypatch.setattr(http, "close", lambda: None)
    return Shell(http)


def test_the_life_of_an_image_and_an_instance_in_commands(shell: Shell, helper: FakeHelper) -> None:
    assert shell("authenticate", given=SECRET).exit_code == 0
    assert shell("images create 2017-05-01T12:00:00Z -", given=SCRIPT).exit_code == 0

    number = json.loads(shell("images list --output json").stdout)[0]["id"]
    nothing = shell(f"images finalise {number}")
    assert (nothing.exit_code, "nothing was uploaded" in nothing.stderr) == (1, True)

    helper.upload(number)
    helper.outcomes[JobKind.FINALISE] = JobState.FAILED
    succeeding = helper.reports[JobKind.FINALISE]
    helper.reports[JobKind.FINALISE] = JobReport(error_code="script_failed", error="ERROR:  no such table\nLINE 1: x")
    failed = shell(f"images finalise {number}")
    assert (failed.exit_code, "ERROR:  no such table\nLINE 1: x" in failed.stderr) == (1, True)

    helper.outcomes[JobKind.FINALISE] = JobState.SUCCEEDED
    helper.reports[JobKind.FINALISE] = succeeding
    assert shell(f"images update {number} --script -", given="SELECT 1;").exit_code == 0
    ready = shell(f"images finalise {number} --output json")
    assert json.loads(ready.stdout)["attributes"]["status"] == "ready"

    created = json.loads(shell(f"instances create {number} --output json").stdout)
    values = json.loads(shell(f"env {created['id']} --output json").stdout)
    assert (values["PGHOST"], values["PGPORT"]) == ("db.example.org", created["attributes"]["port"])
    assert Path(values["PGSSLKEY"]).is_file()
    assert shell("new --sleep-after 2h").stdout.startswith("export PGHOST=db.example.org PGPORT=2000")
    newest = json.loads(shell("instances list --output json").stdout)[-1]["attributes"]
    assert (newest["sleep_after"], newest["network"]) == (7200, "proxied")
    listed = [line.split()[0] for line in shell("instances list").stdout.splitlines()]
    assert listed[:2] == ["ID", str(created["id"])]
    assert shell(f"images destroy {number}").exit_code == 6
    assert shell(f"instances destroy {' '.join(listed[1:])}").exit_code == 0
    assert not Path(values["PGSSLKEY"]).exists()
    assert shell(f"instances destroy {created['id']}").exit_code == 5
    assert shell(f"images destroy {number}").exit_code == 0
    assert shell("images list").stdout == ""
