"""The trial boot of an image: hostile catalogs cost the daemon nothing, and IPv4 and IPv6 are both tried."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from draupnir import certificates, probes
from draupnir.models import Authority
from draupnir_helper.wire import MIN_MAX_BYTES
from tests.bench import helper
from tests.system.backups import MAJOR
from tests.system.faults import DAEMON, main_pid
from tests.system.service import Service, run

TRIAL_ID = 50_000_500  # far from those that the metadata give in a test run
PORT = 8431
# template1 is where the trial signs in.
ENDLESS_ROLES = """
\\c template1
SET allow_system_table_mods = on;
ALTER VIEW pg_catalog.pg_roles RENAME TO true_roles;
CREATE VIEW pg_catalog.pg_roles AS
    SELECT true_roles.* FROM pg_catalog.true_roles, generate_series(1, 5000000) WHERE rolname = 'draupnir';
GRANT SELECT ON pg_catalog.pg_roles TO PUBLIC;
\\c postgres
"""


def most_memory_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def test_a_catalog_without_end_takes_no_memory_of_the_daemon(service: Service, backup: Path) -> None:
    run("systemctl", "restart", "draupnir")
    daemon = main_pid(DAEMON)
    image_id = service.create_image(ENDLESS_ROLES)
    service.upload(image_id, backup)
    answer = service.finalise(image_id)
    service.destroy_image(image_id)
    assert answer.status_code in {200, 422}, answer.text
    assert main_pid(DAEMON) == daemon
    assert most_memory_kb(daemon) < 150_000


def test_a_script_that_writes_into_the_data_directory_fails_with_advice(service: Service, backup: Path) -> None:
    image_id = service.create_image("COPY (SELECT '12') TO '/srv/pgdata/PG_VERSION';")
    service.upload(image_id, backup)
    error = service.finalise(image_id).json()["errors"][0]
    service.destroy_image(image_id)
    assert error["code"] == "cleaning_failed"
    assert "must not write files" in error["detail"]


@pytest.fixture
def trial(image: int) -> Iterator[Authority]:
    """Provide a trial instance on PORT, like the daemon."""
    authority = certificates.create_authority()
    server = certificates.issue_server(authority, "localhost")
    helper.ask(
        "start_instance",
        instance_id=TRIAL_ID,
        image_id=image,
        owner="draupnir",
        port=PORT,
        created_at="2026-01-02T03:04:05Z",
        new=True,
        postgres_major=int(MAJOR),
        loopback_only=True,
        addresses=None,
        sleep_after_s=0,
        direct=False,
        superuser=False,
        ceiling={"max_bytes": MIN_MAX_BYTES, "read_only": False, "extended": False},
        parameters={},
        authority_certificate=authority.certificate,
        server_certificate=server.certificate,
        server_key=server.key,
    )
    yield authority
    helper.ask("destroy_instance", instance_id=TRIAL_ID)
    helper.ask("empty_trash")


def test_a_trial_is_tried_on_both_loopback_addresses_and_on_no_other(trial: Authority) -> None:
    listening = {line.split()[3] for line in run("ss", "-Hltn").stdout.splitlines()}
    assert {each for each in listening if each.endswith(f":{PORT}")} == {f"127.0.0.1:{PORT}", f"[::1]:{PORT}"}
    asyncio.run(probes.Probes()(PORT, trial, "postgres"))
