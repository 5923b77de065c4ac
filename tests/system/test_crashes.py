"""After a kill of any part at any point, nothing is lost or orphaned, and no caller has to repeat a request.

A fixture compares the world before and after each test, with a deadline of 30 s for cleanup.
"""

from __future__ import annotations

import concurrent.futures
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.system import world
from tests.system.faults import (
    DAEMON,
    HELPER,
    METADATA,
    await_healthy,
    await_that,
    injected,
    kill,
    main_pid,
    processes,
    restart,
)
from tests.system.service import ANONYMISE, JSON, Service, Session, run

SLOW = f"SELECT pg_sleep(4);\n{ANONYMISE}"
ENDLESS = "SELECT pg_sleep(3600);"
SCRIPT = "running the anonymisation script"

# The daemon opens one connection to the helper for each request and half-closes it when the request is written, so
# these are the moments before and after a request. The helper's are the changes of disk and identity on the way.
BEFORE, AFTER = "connect:signal=KILL:when=1", "shutdown:signal=KILL:when=1"


def points(helper_calls: str, *daemon: str) -> list[tuple[str, str]]:
    """Return the points to kill: the daemon at these, the helper at the first of each of these system calls."""
    return [
        *((DAEMON, point) for point in daemon),
        *((HELPER, f"{call}:signal=KILL:when=1") for call in helper_calls.split()),
    ]


@pytest.fixture(autouse=True)
def _well_before_and_after(service: Service) -> Iterator[None]:
    await_healthy(service)
    yield
    await_healthy(service)


def listed(service: Service, kind: str) -> dict[int, JSON]:
    answer = service.ask("GET", f"/{kind}")
    assert answer.status_code == 200, answer.text
    return {int(each["id"]): each["attributes"] for each in answer.json()["data"]}


def ask_anyhow(service: Service, method: str, path: str, attributes: JSON | None = None) -> httpx.Response | None:
    """Return the answer, or None if the connection broke because the daemon was killed."""
    with suppress(httpx.TransportError):
        return service.ask(method, path, attributes)
    return None


def crash_during(
    service: Service, unit: str, point: str, method: str, path: str, attributes: JSON | None = None
) -> None:
    """Send a request while the unit will be killed at the point; then wait for recovery.

    Callers do not notice a killed helper, because the daemon repeats the request.
    """
    pid = main_pid(unit)
    with injected(unit, point):
        answer = ask_anyhow(service, method, path, attributes)
    if unit == HELPER:
        assert answer is not None
        assert answer.is_success, answer.text
    await_healthy(service)
    assert main_pid(unit) != pid, f"{method} {path} does not pass {point}"


@pytest.mark.parametrize(("unit", "point"), points("ioctl fchown renameat sendto", BEFORE, AFTER))
def test_an_interrupted_image_creation_is_complete_or_rolled_back(service: Service, unit: str, point: str) -> None:
    before = listed(service, "images")
    attributes = {"backed_up_at": "2017-05-01T12:00:00Z", "anonymisation_script": ""}
    crash_during(service, unit, point, "POST", "/images", attributes)
    for image_id in listed(service, "images").keys() - before.keys():
        folder = world.DATA / f"chroot/draupnir/image_uploads/{image_id}"
        await_that(folder.exists, f"{folder} exists")
        assert folder.owner() == "upload"
        service.destroy_image(image_id)


@pytest.mark.parametrize(("unit", "point"), points("ioctl renameat sendto", BEFORE, AFTER))
def test_an_interrupted_image_destruction_is_completed(service: Service, backup: Path, unit: str, point: str) -> None:
    image_id = service.create_image()
    service.upload(image_id, backup)
    crash_during(service, unit, point, "DELETE", f"/images/{image_id}")
    await_that(lambda: image_id not in listed(service, "images"), "the image is gone")


@pytest.mark.parametrize(("unit", "point"), points("ioctl mkdir fchown rename renameat sendto", BEFORE, AFTER))
def test_an_interrupted_instance_creation_is_complete_or_rolled_back(
    service: Service, image: int, unit: str, point: str
) -> None:
    before = listed(service, "instances")
    crash_during(service, unit, point, "POST", "/instances", {"image_id": image})

    def settled() -> bool:
        return {each["status"] for each in listed(service, "instances").values()} <= {"running"}

    await_that(settled, "the instance runs or is gone")
    for instance_id in listed(service, "instances").keys() - before.keys():
        assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
        service.destroy_instance(instance_id)


@pytest.mark.parametrize(("unit", "point"), points("ioctl renameat unlink sendto", BEFORE, AFTER))
def test_an_interrupted_instance_destruction_is_completed(service: Service, image: int, unit: str, point: str) -> None:
    instance_id = int(service.create_instance(image)["id"])
    service.answer(instance_id, "CREATE TABLE t ()")
    crash_during(service, unit, point, "DELETE", f"/instances/{instance_id}")
    await_that(lambda: instance_id not in listed(service, "instances"), "the instance is gone")


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("number", [3, 4, 5, 6])
def test_an_instance_that_btrfs_refuses_leaves_nothing(service: Service, image: int, number: int, error: str) -> None:
    """One of the helper's first ioctls fails, in each of its threads; later ones succeed."""
    with injected(HELPER, f"ioctl:error={error}:when={number}"):
        answer = service.ask("POST", "/instances", {"image_id": image})
    if answer.is_success:
        service.destroy_instance(answer.json()["data"]["id"])
    else:
        assert answer.json()["errors"][0]["code"] in {"no_room", "storage_missing", "internal", "helper_unavailable"}, (
            answer.text
        )
    again = int(service.create_instance(image)["id"])
    assert service.answer(again, "SELECT count(*) FROM users") == "5000"
    service.destroy_instance(again)


def test_an_upload_that_is_killed_is_sent_again(service: Service, backup: Path) -> None:
    image_id = service.create_image()
    target = f"upload@localhost:/draupnir/image_uploads/{image_id}"
    sending = subprocess.Popen(["scp", *service.ssh_options(), "-l", "4000", backup, target], stderr=subprocess.DEVNULL)
    arrived = world.DATA / f"chroot/draupnir/image_uploads/{image_id}/{backup.name}"
    await_that(lambda: arrived.exists() and arrived.stat().st_size > 0, "the upload has begun")
    run("pkill", "-KILL", "--uid", "upload")
    assert sending.wait(timeout=300) != 0
    assert arrived.stat().st_size < backup.stat().st_size
    service.upload(image_id, backup)
    assert arrived.read_bytes() == backup.read_bytes()
    service.destroy_image(image_id)


@pytest.fixture
def finalising(service: Service, backup: Path) -> Iterator[int]:
    """Provide an uploaded image with a slow script."""
    image_id = service.create_image(SLOW)
    service.upload(image_id, backup)
    assert service.finalise(image_id, headers={"Prefer": "respond-async"}).status_code == 202
    yield image_id
    service.destroy_image(image_id)


def rows_of(image_id: int) -> str:
    """Return the image's status from the metadata, because a request to the daemon would start it."""
    return next((row.split("|")[2] for row in world.rows() if row.startswith(f"image|{image_id}|")), "")


def progress(service: Service, image_id: int) -> JSON:
    """Return its progress, empty if there is none or the service does not answer."""
    answer = ask_anyhow(service, "GET", f"/images/{image_id}")
    found = answer.json()["data"]["attributes"]["progress"] if answer is not None and answer.is_success else None
    return found or {}


def await_ready(service: Service, image_id: int) -> None:
    await_that(lambda: rows_of(image_id) not in {"finalising", ""}, "the finalise has ended")
    attributes = service.image(image_id)
    assert attributes["status"] == "ready", attributes
    instance_id = int(service.create_instance(image_id)["id"])
    assert service.answer(instance_id, "SELECT count(*) FROM users WHERE email LIKE '%@example.com'") == "5000"
    service.destroy_instance(instance_id)


@pytest.mark.parametrize("unit", [DAEMON, HELPER])
def test_a_finalise_continues_to_ready_though_the_unit_is_killed_at_every_step(
    service: Service, finalising: int, unit: str
) -> None:
    killed: list[str] = []

    def kill_at_each_new_step() -> bool:
        found = progress(service, finalising)
        step = found.get("step", "") + (" script" if found.get("activity") == SCRIPT else "")
        if step.strip() and step not in killed:
            kill(unit)
            killed.append(step)
        return rows_of(finalising) != "finalising"

    await_that(kill_at_each_new_step, "the finalise has ended")
    assert {"extract", "finalise", "finalise script", "trial"} <= set(killed)
    await_ready(service, finalising)


def test_a_finalise_whose_daemon_was_killed_ends_ready_without_anyone_asking(service: Service, finalising: int) -> None:
    await_that(lambda: progress(service, finalising).get("activity") == SCRIPT, "the script runs")
    kill(DAEMON)
    await_that(lambda: rows_of(finalising) == "ready", "the image is ready")
    await_ready(service, finalising)


def test_a_finalise_is_joined_by_callers_after_a_restart(service: Service, finalising: int) -> None:
    """Restarts of daemon, helper, metadata and the bus, and a daemon-reexec, do not affect the job."""
    await_that(lambda: progress(service, finalising).get("activity") == SCRIPT, "the script runs")
    job = main_pid(f"draupnir-finalise-{finalising}.service")
    for unit in (DAEMON, HELPER, METADATA, "dbus"):
        restart(unit)
    run("systemctl", "daemon-reexec")
    assert main_pid(f"draupnir-finalise-{finalising}.service") in {job, 0}
    await_ready(service, finalising)


@pytest.mark.parametrize("kind", ["extract", "finalise"])
def test_a_job_that_is_killed_fails_the_image_and_can_be_done_again(service: Service, backup: Path, kind: str) -> None:
    image_id = service.create_image(ENDLESS)
    service.upload(image_id, backup)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.finalise, image_id)
        unit = f"draupnir-{kind}-{image_id}.service"
        if kind == "finalise":
            await_that(lambda: progress(service, image_id).get("activity") == SCRIPT, "the script runs")
        await_that(lambda: processes(unit), f"{unit} runs")
        kill(unit)
    (error,) = answer.result().json()["errors"]
    assert error["code"] == "job_killed", error
    assert f"journalctl -u draupnir-{kind}-{image_id}" in error["detail"]
    service.ask("PATCH", f"/images/{image_id}", {"anonymisation_script": ANONYMISE})
    assert service.finalise(image_id).status_code == 200
    service.destroy_image(image_id)


@pytest.mark.parametrize("kind", ["extract", "finalise"])
def test_a_job_that_exits_without_a_report_has_failed(service: Service, backup: Path, kind: str) -> None:
    """systemd does not always see the exit status of a process in a pid namespace, and then reports success."""
    image_id = service.create_image()
    service.upload(image_id, backup)
    drop_in = Path(f"/run/systemd/system/draupnir-{kind}-{image_id}.service.d/99-test.conf")
    drop_in.parent.mkdir()
    drop_in.write_text('[Service]\nExecStart=\nExecStart=/usr/bin/python3 -I -c "pass"\n')
    try:
        (error,) = service.finalise(image_id).json()["errors"]
    finally:
        drop_in.unlink()
        drop_in.parent.rmdir()
    assert error["code"] == "job_killed", error
    assert service.image(image_id)["status"] == "failed"
    assert service.finalise(image_id).status_code == 200
    service.destroy_image(image_id)


def test_a_server_killed_under_the_script_fails_the_image(service: Service, backup: Path) -> None:
    image_id = service.create_image(ENDLESS)
    service.upload(image_id, backup)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.finalise, image_id)
        await_that(lambda: progress(service, image_id).get("activity") == SCRIPT, "the script runs")
        for pid in processes(f"draupnir-finalise-{image_id}.service"):
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "postgres":
                    run("kill", "-KILL", str(pid), ok=False)
    assert answer.result().status_code == 422
    assert service.image(image_id)["ready"] is False
    service.destroy_image(image_id)


def test_a_postgres_that_is_killed_is_back_with_its_data(service: Service, instance: int) -> None:
    # Commit synchronously, because an instance uses synchronous_commit = off and may lose the last half second.
    service.psql(instance, "SET synchronous_commit = on; CREATE TABLE kept AS SELECT 42 AS answer")
    run("kill", "-KILL", str(main_pid(f"draupnir-instance-{instance}.service")))
    await_that(
        lambda: service.psql(instance, "SELECT answer FROM kept", ok=False).stdout.strip() == "42", "Postgres is back"
    )


def test_a_postgres_that_hangs_can_be_destroyed(service: Service, image: int) -> None:
    instance_id = int(service.create_instance(image)["id"])
    service.answer(instance_id, "SELECT 1")
    run("kill", "-STOP", str(main_pid(f"draupnir-instance-{instance_id}.service")))
    service.destroy_instance(instance_id)


def test_an_instance_without_units_is_started_again(service: Service, instance: int) -> None:
    """The state is that of a reboot: transient units, users and configuration are missing, and the data exist."""
    service.psql(instance, "CREATE TABLE kept AS SELECT 42 AS answer")
    units = [f"draupnir-port-{instance}.socket", f"draupnir-port-{instance}.service"]
    run("systemctl", "stop", *units, f"draupnir-instance-{instance}.service")
    await_that(lambda: service.psql(instance, "SELECT 1", ok=False).returncode == 0, "it is reachable")
    assert service.answer(instance, "SELECT answer FROM kept") == "42"


def test_an_instance_that_is_stopped_shuts_down_in_order(service: Service, instance: int) -> None:
    """Repeated, because it is random how systemd sees the process."""
    unit = f"draupnir-instance-{instance}.service"
    for number in range(5):
        service.psql(instance, f"CREATE TABLE kept_{number} ()")
        run("systemctl", "stop", unit)
    service.answer(instance, "SELECT * FROM kept_0, kept_1, kept_2, kept_3, kept_4")
    assert "not properly shut down" not in run("journalctl", "--namespace=*", "-o", "cat", "-u", unit).stdout


def test_unavailable_metadata_return_503_and_recover(service: Service, image: int) -> None:
    run("systemctl", "stop", METADATA)
    try:
        answer = service.ask("GET", f"/images/{image}")
        assert answer.status_code == 503
        assert answer.json()["errors"][0]["code"] == "metadata_unavailable"
        assert service.ask("GET", "/health_check").status_code == 503
    finally:
        run("systemctl", "start", METADATA)
    await_that(lambda: service.ask("GET", "/images").status_code == 200, "the API answers again")


def test_killed_metadata_recover(service: Service, image: int) -> None:
    kill(METADATA)
    statuses = set[int]()

    def back() -> bool:
        statuses.add(service.ask("GET", f"/images/{image}").status_code)
        return 200 in statuses

    await_that(back, "the API answers again")
    assert statuses <= {200, 503}


@pytest.mark.parametrize(
    "command",
    [
        partial(restart, "draupnir", "draupnir-helper"),
        partial(restart, "draupnir-metadata"),
        partial(restart, "dbus"),
        partial(run, "systemctl", "daemon-reload"),
        partial(run, "systemctl", "daemon-reexec"),
    ],
    ids=["daemon and helper", "metadata", "bus", "reload", "reexec"],
)
def test_a_connection_survives_a_restart_of_each_service(
    service: Service, instance: int, command: Callable[[], object]
) -> None:
    session = Session(service, instance)
    backend = session.answer("SELECT pg_backend_pid();")
    assert re.fullmatch("[0-9]+", backend)
    command()
    await_healthy(service)
    assert session.answer("SELECT pg_backend_pid();") == backend
    session.close()
    assert service.answer(instance, "SELECT count(*) FROM users") == "5000"
    other = int(service.create_instance(service_image(service, instance))["id"])
    service.destroy_instance(other)


def service_image(service: Service, instance_id: int) -> int:
    return int(service.ask("GET", f"/instances/{instance_id}").json()["data"]["attributes"]["image_id"])


@pytest.mark.parametrize("unit", [DAEMON, HELPER])
def test_a_unit_killed_over_and_over_is_still_started_again(service: Service, unit: str) -> None:
    for _ in range(7):
        await_healthy(service)
        kill(unit, signal.SIGKILL)
    await_healthy(service)


def test_a_helper_killed_during_a_write_starts_again(service: Service) -> None:
    """Leftovers under a temporary name are removed."""
    manifest = world.DATA / "instances/.new-999.json"
    manifest.write_text("{")
    run("btrfs", "subvolume", "create", world.DATA / "instances/.new-999")
    run("systemctl", "restart", HELPER)
    await_healthy(service)
    assert not manifest.exists()
    assert not (world.DATA / "instances/.new-999").exists()


def test_units_that_outlive_their_instance_are_stopped(service: Service) -> None:
    before = world.units()
    name = "draupnir-port-66000000"
    run("systemd-run", f"--unit={name}", "--socket-property=ListenStream=127.0.0.1:6431", "/bin/true")
    assert any(name in unit for unit in world.units())
    await_that(lambda: world.units() == before, "the reconciler has stopped them")
    assert "exists and is not in the metadata" not in run("draupnir", "doctor", ok=False).stdout


def test_leftovers_do_not_prevent_new_images_and_instances(service: Service, backup: Path) -> None:
    """The state is that of a restored disk: the highest ids, unknown ids, and files named like ids."""
    data = world.DATA
    places = ("instances/67108863", "instances/49999999", "image_snapshots/67108863", "instances/99999999999")
    for place in places:
        run("btrfs", "subvolume", "create", data / place)
    foreign = data / "image_snapshots/67108862"
    foreign.touch()
    try:
        restart(DAEMON)
        await_healthy(service)
        doctor = run("draupnir", "doctor", ok=False).stdout
        assert "instance 67108863 exists and is not in the metadata" in doctor
        assert "image_snapshots/67108862 exists and is not in the metadata" in doctor
        for _ in range(2):
            image = service.make_image(backup)
            instance = int(service.create_instance(image)["id"])
            assert service.answer(instance, "SELECT count(*) FROM users") == "5000"
            service.destroy_instance(instance)
            service.destroy_image(image)
        assert all((data / place).is_dir() for place in places)
    finally:
        foreign.unlink()
        for place in places:
            run("btrfs", "subvolume", "delete", data / place)
