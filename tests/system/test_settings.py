"""An instance has the settings of its source, of its image and its own, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import world
from tests.system.backups import Source
from tests.system.service import ANONYMISE, Service

CONFIGURATION = """
datestyle = 'German, DMY'   # formats
timezone = 'Europe/Berlin'
lc_monetary = 'de_DE.UTF-8'
lc_time = 'xx_XX.UTF-8'
default_text_search_config = 'pg_catalog.german'
statement_timeout = '1s'
random_page_cost = 1.1
work_mem = 5MB
archive_command = 'touch /tmp/archived'
"""
# The script is a session of the source, but without its time limits.
SCRIPT = f"""{ANONYMISE}
DO $$ BEGIN
  IF '3.4.2017'::date <> make_date(2017, 4, 3) THEN RAISE 'another date style'; END IF;
END $$;
SELECT pg_sleep(1.5);
"""


@pytest.fixture(scope="module")
def german(service: Service, image: int, source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Provide an image of a source with settings; its postgresql.conf is beside the archive, as on Debian."""
    before = world.observe()
    beside = tmp_path_factory.mktemp("etc") / "postgresql.conf"
    beside.write_text(CONFIGURATION)
    answer = service.ask(
        "POST",
        "/images",
        {
            "backed_up_at": "2017-05-01T12:00:00Z",
            "anonymisation_script": SCRIPT,
            "settings": {"work_mem": "6MB", "join_collapse_limit": 9},
        },
    )
    assert answer.status_code == 201, answer.text
    image_id = int(answer.json()["data"]["id"])
    service.upload(image_id, source.tarball("db_backup.tar.gz", "-z"), beside)
    answer = service.finalise(image_id)
    assert answer.status_code == 200, answer.text
    yield image_id
    service.destroy_image(image_id)
    world.await_equal(before)


def shown(service: Service, instance_id: int, *names: str) -> dict[str, str]:
    return {name: service.answer(instance_id, f"SHOW {name}") for name in names}


def test_instances_answer_as_the_source_does(service: Service, german: int) -> None:
    answer = service.ask(
        "POST", "/instances", {"image_id": german, "settings": {"join_collapse_limit": 10, "statement_timeout": "2s"}}
    )
    assert answer.status_code == 201, answer.text
    instance_id = int(answer.json()["data"]["id"])
    assert shown(
        service, instance_id, "datestyle", "timezone", "lc_monetary", "default_text_search_config", "random_page_cost",
        "work_mem", "join_collapse_limit", "statement_timeout", "lc_time", "archive_command",
    ) == {
        "datestyle": "German, DMY", "timezone": "Europe/Berlin", "lc_monetary": "de_DE.UTF-8",
        "default_text_search_config": "pg_catalog.german", "random_page_cost": "1.1",
        "work_mem": "6MB", "join_collapse_limit": "10", "statement_timeout": "2s",
        "lc_time": "C", "archive_command": "(disabled)",
    }  # fmt: skip
    assert answer.json()["data"]["attributes"]["settings"]["work_mem"] == "6MB"
    service.destroy_instance(instance_id)


def test_the_report_lists_carried_over_and_dropped_settings(service: Service, german: int) -> None:
    rows = json.loads(service.client("--output", "json", "images", "show", str(german), "--report").stdout)
    found = {row["code"]: row["object"] for row in rows}
    assert "datestyle" in found["settings_carried_over"]
    assert found["settings_refused"] == "lc_time"
    assert "archive_command" in found["settings_dropped"]
    assert (found["subscription_dropped"], found["superuser_demoted"]) == ("feed", "app")
    assert found["user_mapping_dropped"] == "production app"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"hba_file": "/tmp/x"}, "invalid_request"),
        ({"work_mem": "lots"}, "invalid_request"),
        ({"datestyle": "Klingon"}, "invalid_request"),
        ({"lc_time": "xx_XX"}, "setting_refused"),
        ({"timezone": "Mars/Olympus"}, "setting_refused"),
    ],
)
def test_an_impossible_setting_is_refused_and_leaves_nothing(
    service: Service, image: int, settings: dict[str, str], code: str
) -> None:
    answer = service.ask("POST", "/instances", {"image_id": image, "settings": settings})
    assert answer.status_code in {400, 422}, answer.text
    assert answer.json()["errors"][0]["code"] == code


def test_an_image_with_a_setting_that_its_postgres_refuses_fails(service: Service, backup: Path) -> None:
    image_id = service.create_image()
    changed = service.ask("PATCH", f"/images/{image_id}", {"settings": {"timezone": "Mars/Olympus"}})
    assert changed.status_code == 200, changed.text
    service.upload(image_id, backup)
    answer = service.finalise(image_id)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "setting_refused")
    assert "timezone = Mars/Olympus" in answer.text
    service.destroy_image(image_id)
