"""A selection of the attacks in tests/hostile, all of which `make test-long` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile import daemon
from tests.hostile.archives import ARCHIVES
from tests.hostile.directories import DIRECTORIES, Directory
from tests.hostile.escapes import escaped
from tests.hostile.scripts import SCRIPTS, Script
from tests.hostile.uploading import finalised, outcome
from tests.system.backups import Source
from tests.system.faults import HELPER, main_pid
from tests.system.service import ANONYMISE, Service

CHOSEN_ARCHIVES = (
    "a name: climbs by PAX",
    "a kind: a symlink and a file through it",
    "a header: a long name of two gigabytes",
    "compression: two gzips, one tar behind the other",
)
# These can be combined in one data directory.
CHOSEN_DIRECTORIES = (
    "event trigger: at sign-in, woken by a role",
    "configuration: postgresql.auto.conf names other rules",
    "settings: libraries for every session",
    "roles: a superuser with an oid of the bootstrap's time",
    "code: internal functions",
    "code: SECURITY DEFINER functions",
)
CHOSEN_SCRIPTS = (
    "postgresql.auto.conf by COPY",
    "draupnir made superuser",
    "a SECURITY DEFINER function of an extension",
)

pytestmark = pytest.mark.usefixtures("_unharmed")


def test_hostile_archives_are_refused(service: Service, tmp_path: Path) -> None:
    for name in CHOSEN_ARCHIVES:
        assert outcome(service, ARCHIVES[name].make(), tmp_path) in ARCHIVES[name].codes, name


def opens_nothing(service: Service, upload: Path, script: str, superusers: tuple[str, ...]) -> None:
    image_id = service.create_image(script)
    try:
        service.upload(image_id, upload)
        if finalised(service, image_id) == "ready":
            instance_id = int(service.create_instance(image_id)["id"])
            assert escaped(service, instance_id, superusers) == []
    finally:
        service.destroy_image(image_id)


def test_a_data_directory_of_many_tricks_opens_nothing(service: Service, source: Source, tmp_path: Path) -> None:
    chosen = [DIRECTORIES[name] for name in CHOSEN_DIRECTORIES]
    files = {name: content for each in chosen for name, content in each.files.items()}
    superusers = tuple(role for each in chosen for role in each.superusers)
    whole = Directory("\n".join(each.sql for each in chosen), files)
    opens_nothing(service, whole.make(source, tmp_path / "hostile"), ANONYMISE, superusers)


def test_a_script_of_many_tricks_opens_nothing(service: Service, backup: Path) -> None:
    text = "\n".join(SCRIPTS[name].text for name in CHOSEN_SCRIPTS)
    opens_nothing(service, backup, Script(text, frozenset()).whole(), ())


def test_a_hostile_daemon_is_refused() -> None:
    pid = main_pid(HELPER)
    codes = {name: daemon.code_of(daemon.ask(frame)) for name, frame in daemon.FRAMES.items()}
    assert {name: code for name, code in codes.items() if code not in {"bad_request", "hung up"}} == {}
    for name, (request, allowed) in daemon.OUT_OF_ORDER.items():
        assert daemon.code_of(daemon.ask(request)) in allowed, name
    assert pid in {0, main_pid(HELPER)}
