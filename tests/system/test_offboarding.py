"""A revoked user loses access and connections within an interval; the data are retained. Outages do nothing."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system import world
from tests.system.faults import DAEMON, HELPER, await_healthy, await_that, configured, kill
from tests.system.people import BOSS, IdentityProvider, metadata, sign_in, signing_in
from tests.system.service import Service, run

JANE = "jane@example.com"


@pytest.fixture(scope="module")
def provider(service: Service, image: int) -> Iterator[IdentityProvider]:
    """Configure sign-in, checks every second, and a grace period of an hour."""
    with (
        configured(service, "allow_superuser = true\n"),
        signing_in(service, clean_interval="1s", grace_period="1h") as running,
    ):
        yield running


@pytest.fixture
def boss(service: Service, provider: IdentityProvider) -> Service:
    """Provide the service with an admin's session."""
    return sign_in(service, BOSS)


@pytest.fixture
def jane(service: Service, provider: IdentityProvider) -> Iterator[Service]:
    """Provide the service with a user's session; destroy her instances at the end."""
    yield sign_in(service, JANE)
    boss = sign_in(service, BOSS)
    for data in boss.ask("GET", "/instances?all=true").json()["data"]:
        boss.destroy_instance(data["id"])
    metadata(f"DELETE FROM tokens WHERE owner = '{JANE}'; DELETE FROM users WHERE email = '{JANE}'")


@pytest.fixture
def hers(jane: Service, image: int) -> int:
    """Provide an instance of hers with data."""
    instance_id = int(jane.create_instance(image)["id"])
    jane.psql(instance_id, "CREATE TABLE kept AS SELECT 42 AS x")
    return instance_id


# A superuser can write these files, and hopes that Postgres trusts their old certificate authority, or everybody.
OWN_FILES = {
    "old.crt": r"regexp_split_to_table(pg_read_file('/run/draupnir/instance/authority.crt'), E'\n')",
    "old_hba.conf": "'host all all all trust'",
    "postgresql.auto.conf": "unnest(ARRAY[$$ssl_ca_file = '/srv/pgdata/old.crt'$$,"
    " $$hba_file = '/srv/pgdata/old_hba.conf'$$, $$work_mem = '5MB'$$])",
}


@pytest.fixture
def hers_as_superuser(jane: Service, image: int) -> int:
    """Provide an instance where she is a superuser, and has changed what she can of its configuration."""
    made = jane.ask("POST", "/instances", {"image_id": image, "superuser": True})
    instance_id = int(made.json()["data"]["id"])
    jane.psql(instance_id, "CREATE TABLE kept AS SELECT 42 AS x")
    for name, lines in OWN_FILES.items():
        jane.psql(instance_id, f"COPY (SELECT {lines}) TO '/srv/pgdata/{name}'")
    jane.client("instances", "restart", str(instance_id))
    assert jane.answer(instance_id, "SHOW work_mem") == "5MB"
    return instance_id


def port_of(boss: Service, instance_id: int) -> int:
    return int(shown(boss, instance_id)["port"])


def shown(boss: Service, instance_id: int) -> Mapping[str, str]:
    attributes: Mapping[str, str] = boss.ask("GET", f"/instances/{instance_id}").json()["data"]["attributes"]
    return attributes


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def await_closed(boss: Service, instance_id: int) -> None:
    await_that(lambda: shown(boss, instance_id)["status"] == "closed", "it is closed")
    await_that(lambda: refuses(port_of(boss, instance_id)), "its port is closed")
    await_that(lambda: not units_of(instance_id), "nothing of it runs")
    await_that(lambda: not Path(f"/run/draupnir/instances/{instance_id}").exists(), "its certificates are gone")


def units_of(instance_id: int) -> set[str]:
    return {unit for unit in world.units() if unit.split(".")[0].endswith(f"-{instance_id}")}


@contextmanager
def connected(environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Open a connection with a query that takes longer than any test."""
    argv = ["psql", "-XAtq", "-c", "SELECT 'connected'", "-c", "SELECT pg_sleep(600)"]
    with subprocess.Popen(
        argv, env={**environment, "PGDATABASE": "my_db"}, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "connected\n"
        try:
            yield client
        finally:
            client.kill()


@pytest.mark.parametrize("fixture", ["hers", "hers_as_superuser"])
def test_a_revoked_user_loses_connections_and_an_admin_keeps_the_data(
    provider: IdentityProvider,
    jane: Service,
    boss: Service,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    fixture: str,
) -> None:
    hers: int = request.getfixturevalue(fixture)
    old = dict(jane.environment(hers))
    # A copy of her files; the test's admin has the same home, and will overwrite them.
    for name in ("PGSSLCERT", "PGSSLKEY"):
        old[name] = shutil.copy(old[name], tmp_path)
    port = port_of(boss, hers)
    with connected(old) as client:
        provider.obey(revoke=JANE)
        # It would take ten minutes.
        assert client.wait(timeout=300) != 0
    assert refuses(port)
    await_closed(boss, hers)
    assert jane.ask("GET", "/instances").status_code == 401
    assert (world.DATA / f"instances/{hers}/PG_VERSION").exists()
    (listed,) = json.loads(boss.client("instances", "list", "--all", "--output", "json").stdout)
    assert listed["attributes"]["status"] == "closed"
    assert listed["attributes"]["destroy_at"]
    audit = f"work=close_instance_{hers} reason=owner_left:{JANE} result=done"
    await_that(lambda: audit in run("journalctl", "-t", "draupnir-audit", "-o", "cat").stdout, "it is in the audit log")

    assert boss.client("instances", "restore", str(hers), "--owner", "nobody@example.com", ok=False).returncode == 6
    boss.client("instances", "restore", str(hers), "--owner", BOSS)
    assert boss.answer(hers, "SELECT x FROM kept") == "42"
    assert "for boss@example.com" in run("systemctl", "status", f"draupnir-instance-{hers}").stdout
    assert json.loads((world.DATA / f"instances/{hers}.json").read_text())["owner"] == BOSS
    known = {**old, "PGSSLROOTCERT": boss.environment(hers)["PGSSLROOTCERT"], "PGDATABASE": "my_db"}
    refused = run("psql", "-XAtqc", "SELECT 1", env=known, ok=False)
    assert refused.returncode != 0
    # The client may see only a closed connection.
    log = ("journalctl", "--namespace=*", "-u", f"draupnir-instance-{hers}", "-o", "cat")
    await_that(lambda: "could not accept SSL connection" in run(*log).stdout, "Postgres has refused her certificate")


def test_signing_in_again_restores_the_instance(
    service: Service, provider: IdentityProvider, jane: Service, boss: Service, hers: int
) -> None:
    provider.obey(revoke=JANE)
    await_closed(boss, hers)
    again = sign_in(service, JANE)
    await_that(lambda: again.ask("GET", f"/instances/{hers}").status_code == 200, "she has it back")
    assert again.answer(hers, "SELECT x FROM kept") == "42"


def test_an_admin_opens_it_for_its_owner(provider: IdentityProvider, jane: Service, boss: Service, hers: int) -> None:
    provider.obey(revoke=JANE)
    await_closed(boss, hers)
    answer = boss.ask("POST", f"/instances/{hers}/restore")
    assert answer.status_code == 200, answer.text
    attributes = answer.json()["data"]["attributes"]
    assert (attributes["owner"], attributes["status"] in {"asleep", "running"}) == (JANE, True)
    assert "destroy_at" not in attributes
    assert not refuses(int(attributes["port"]))


def test_a_direct_instance_is_closed_too(provider: IdentityProvider, jane: Service, boss: Service, image: int) -> None:
    made = jane.ask("POST", "/instances", {"image_id": image, "network": "direct"}).json()["data"]
    with connected(jane.environment(made["id"])) as client:
        provider.obey(revoke=JANE)
        assert client.wait(timeout=300) != 0
    await_closed(boss, made["id"])
    boss.client("instances", "restore", str(made["id"]), "--owner", BOSS)
    assert boss.answer(made["id"], "SELECT count(*) FROM users") == "5000"


@pytest.mark.parametrize(
    "orders",
    [{"fail": 500}, {"fail": 503, "error": "invalid_grant"}, {"fail": 200}],
    ids=["an error", "an error that looks definite", "nonsense"],
)
def test_an_outage_revokes_nobody(
    provider: IdentityProvider, jane: Service, hers: int, orders: dict[str, object]
) -> None:
    with connected(jane.environment(hers)) as client:
        provider.obey(**orders)
        before = asked_in_vain()
        await_that(lambda: asked_in_vain() >= before + 4, "it was asked several times")
        assert client.poll() is None
    provider.obey()
    assert jane.answer(hers, "SELECT x FROM kept") == "42"


def test_a_provider_without_an_answer_closes_nothing(
    service: Service, provider: IdentityProvider, jane: Service, hers: int
) -> None:
    with connected(jane.environment(hers)) as client:
        before = asked_in_vain()
        with provider.held():
            await_that(lambda: asked_in_vain() >= before + 1, "the checks failed")
            assert jane.ask("GET", "/instances").status_code == 200
        assert client.poll() is None
    # The thawed provider answers the old request, and refuses the known token; but the user is still active.
    await_that(lambda: jane.ask("GET", "/instances").status_code == 401, "she has to sign in again")
    again = sign_in(service, JANE)
    assert again.answer(hers, "SELECT x FROM kept") == "42"


def asked_in_vain(email: str = JANE) -> int:
    journal = run("journalctl", "-u", "draupnir", "-o", "cat").stdout
    return journal.count(f"the check of {email} failed")


def test_an_offboarding_is_completed_after_daemon_and_helper_were_killed(
    service: Service, provider: IdentityProvider, jane: Service, boss: Service, hers: int
) -> None:
    port = port_of(boss, hers)
    kill(HELPER, signal.SIGSTOP)
    try:
        provider.obey(revoke=JANE)
        await_that(lambda: metadata(f"SELECT status FROM instances WHERE id = {hers}") == "closed", "it is decided")
        assert not refuses(port)
        # A daemon that is killed during a rotation loses the new token, also for the admin.
        provider.obey(fail=500)
        before = asked_in_vain(BOSS)
        await_that(lambda: asked_in_vain(BOSS) > before, "nothing is renewed, nor does anybody wait for the helper")
        kill(DAEMON)
    finally:
        kill(HELPER)
    await_healthy(service)
    provider.obey()
    await_closed(boss, hers)
    assert metadata(f"SELECT count(*) FROM tokens WHERE owner = '{JANE}'") == "0"


def test_a_manually_started_unit_is_closed_again(
    provider: IdentityProvider, jane: Service, boss: Service, hers: int
) -> None:
    port = port_of(boss, hers)
    provider.obey(revoke=JANE)
    await_closed(boss, hers)
    run("systemd-run", f"--unit=draupnir-port-{hers}", f"--socket-property=ListenStream={port}", "sleep", "600")
    assert not refuses(port)
    await_closed(boss, hers)


def test_an_instance_is_destroyed_after_the_grace_period(
    service: Service, provider: IdentityProvider, jane: Service, boss: Service, hers: int
) -> None:
    provider.obey(revoke=JANE)
    await_closed(boss, hers)
    # The same as an hour of the service's run time.
    metadata("UPDATE instances SET closed_s = 3600 WHERE status = 'closed'")
    await_that(lambda: boss.ask("GET", f"/instances/{hers}").status_code == 404, "it is gone")
    await_that(lambda: not (world.DATA / f"instances/{hers}").exists(), "its data are gone")


def test_doctor_reports_failed_checks(provider: IdentityProvider, jane: Service, boss: Service, hers: int) -> None:
    def people() -> tuple[str, str]:
        found = json.loads(run("draupnir", "doctor", "--output", "json", ok=False).stdout)["findings"]
        return next((each["verdict"], each["text"]) for each in found if each["part"] == "people")

    assert people()[0] == "ok"
    provider.obey(fail=500)
    metadata("UPDATE users SET checked_at = now() - interval '1 hour'")
    verdict, text = people()
    assert (verdict, JANE in text or BOSS in text) == ("warning", True)
    provider.obey()
    await_that(lambda: people()[0] == "ok", "it is healthy again")
