"""A superuser in an instance, even with an untrusted language, reaches nothing outside of its sandbox."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.hostile import aftermath
from tests.system import inside, world
from tests.system.backups import MAJOR
from tests.system.faults import HELPER, await_that, configured, kill, processes
from tests.system.service import Service, run
from tests.system.test_sandbox import INSTANCE_PROBES, PROBES, quoted, writing
from tests.system.world import DATA

DROP_INS = Path("/run/systemd/system/draupnir-instance-promotion-.service.d")
LIBRARY = f"/usr/lib/postgresql/{MAJOR}/lib/pg_trgm.so"
BACK_DOORS = """
CREATE EXTENSION plpython3u;
CREATE EXTENSION dblink;
CREATE FUNCTION native(code text) RETURNS text LANGUAGE plpython3u AS $$
names = {}
try:
    exec(code, names)
    return f"done: {names.get('result')}"
except Exception as error:
    return f"refused: {error!r}"
$$;
CREATE FUNCTION back_door(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
  IF statement LIKE 'SELECT%' THEN EXECUTE statement INTO result; ELSE EXECUTE statement; END IF;
  RETURN 'done: ' || coalesce(result, '');
EXCEPTION WHEN OTHERS THEN RETURN 'refused: ' || SQLERRM;
END $$;
"""
_CONNECT = "import socket; socket.socket(socket.AF_UNIX).connect({!r})"
_REACH = "import socket; socket.create_connection(({!r}, {}), 3)"
_RUN = "import subprocess; subprocess.run({!r}, check=True)"
NATIVE = {
    "shadow": "open('/etc/shadow').read()",
    "the shared secret": "open('/etc/draupnir/shared_secret').read()",
    "the configuration": "import os; os.listdir('/etc/draupnir')",
    "data of other instances": "import os; os.listdir('/srv/draupnir/instances')",
    "data of other instances by the link": "import os; os.listdir('/run/draupnir/data/instances')",
    "images": "import os; os.listdir('/run/draupnir/data/image_snapshots')",
    "the keys of other instances": "import os; os.listdir('/run/draupnir/instances')",
    "its own image's manifest": "open('/srv/pgdata/../draupnir/image_snapshots/1.json').read()",
    "the metadata": "import os; os.listdir('/var/lib/draupnir')",
    "the root of PID 1": "import os; os.listdir('/proc/1/root/etc/draupnir')",
    "the helper": _CONNECT.format("/run/draupnir-helper.sock"),
    "the metadata's socket": _CONNECT.format("/run/draupnir-metadata/.s.PGSQL.5432"),
    "the bus": _CONNECT.format("/run/dbus/system_bus_socket"),
    "systemd": _CONNECT.format("/run/systemd/private"),
    "userdb": _CONNECT.format("/run/systemd/userdb/io.systemd.DynamicUser"),
    "the API": _REACH.format("127.0.0.1", 8432),
    "the API on IPv6": _REACH.format("::1", 8432),
    "ssh": _REACH.format("127.0.0.1", 22),
    "an address outside": _REACH.format("192.0.2.1", 80),
    "the metadata of a cloud": _REACH.format("169.254.169.254", 80),
    "a shell": _RUN.format(["/bin/sh", "-c", "id"]),
    "a program of the system": _RUN.format(["/usr/bin/id"]),
    "Python": _RUN.format(["/usr/bin/python3", "-c", "1"]),
    "a file in /etc": "open('/etc/draupnir-escaped', 'w')",
    "a file in /usr": "open('/usr/lib/draupnir-escaped', 'w')",
    "a file in /run": "open('/run/draupnir-escaped', 'w')",
    "a record of a user": "open('/run/userdb/draupnir-escaped.user', 'w')",
    "its own rules for sign-in": "open('/run/draupnir/instance/pg_hba.conf', 'a')",
    "its own certificates": "open('/run/draupnir/instance/authority.crt', 'a')",
    "its own limits": "open('/sys/fs/cgroup/memory.max', 'w')",
    "a setting of the kernel": "open('/proc/sys/kernel/core_pattern', 'w')",
    "another user": "import os; os.setuid(0)",
    "a file of another user": "import os; os.chown('/srv/pgdata/PG_VERSION', 0, 0)",
    "a program with the rights of another": "import os; os.chmod('/srv/pgdata/PG_VERSION', 0o4755)",
    "a device": "import os; os.mknod('/srv/pgdata/device', 0o60600, os.makedev(7, 0))",
    "a higher priority": "import os; os.setpriority(os.PRIO_PROCESS, 0, -10)",
}
VIEWS = {
    "its environment": (
        "import os; result = ' '.join(sorted(os.environ))",
        r"(INVOCATION_ID|JOURNAL_STREAM|LANG|LC_[A-Z]+|LOGNAME|LOG_NAMESPACE|MEMORY_PRESSURE_[A-Z]+|NOTIFY_SOCKET|PATH"
        r"|PG[A-Z]+|PWD|SHELL|SYSTEMD_[A-Z_]+|USER|HOME| )+",
    ),
    "its processes": (
        "import glob; result = ' '.join({open(path).read().strip() for path in glob.glob('/proc/[0-9]*/comm')})",
        r"postgres",
    ),
    "its users": ("import os; result = os.getuid() == os.geteuid() > 2**30 and 0 not in os.getgroups()", "True"),
}
# A superuser can write this file. The command line overrides it.
CONFIGURATION = """
port = 1
listen_addresses = ''
ssl = off
ssl_ca_file = '/srv/pgdata/their.crt'
hba_file = '/srv/pgdata/their_hba.conf'
shared_preload_libraries = '/srv/pgdata/evil.so'
session_preload_libraries = '/srv/pgdata/evil.so'
archive_mode = on
archive_command = 'id'
logging_collector = on
restart_after_crash = off
data_directory = '/tmp'
work_mem = '5MB'
"""


@contextmanager
def undone() -> Iterator[None]:
    """Check that everything created in the block is destroyed."""
    world.await_quiet()
    before = world.observe()
    yield
    world.await_equal(before)


@pytest.fixture(scope="module")
def _allowed(service: Service) -> Iterator[None]:
    """Let users have superusers."""
    with configured(service, "allow_superuser = true\n"):
        yield


def create(service: Service, image_id: int) -> httpx.Response:
    return service.ask("POST", "/instances", {"image_id": image_id, "superuser": True})


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["errors"][0]["code"]


def is_superuser(service: Service, instance_id: int) -> str:
    return service.answer(instance_id, "SHOW is_superuser")


def promotions() -> list[str]:
    """Return the units that make a superuser now."""
    listed = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "draupnir-instance-promotion-*").stdout
    return [line.split()[0] for line in listed.splitlines()]


def await_promotion() -> str:
    """Wait until a unit that makes a superuser runs, and return it."""
    await_that(promotions, "the promotion has begun")
    (unit,) = promotions()
    await_that(lambda: processes(unit), "the promotion runs")
    return unit


@pytest.fixture(scope="module")
def theirs(service: Service, image: int, _allowed: None, bystanders: aftermath.Bystanders) -> Iterator[int]:
    """Provide the instance of a superuser, with an untrusted language."""
    with undone():
        instance_id = int(create(service, image).json()["data"]["id"])
        service.psql(instance_id, BACK_DOORS)
        yield instance_id
        service.destroy_instance(instance_id)


@pytest.fixture(scope="module")
def answers(service: Service, theirs: int) -> dict[str, str]:
    """Provide the answers to all statements and all native code."""
    service.psql(theirs, "CREATE TABLE answers (asked text, answer text)")
    libraries = [writing(path, LIBRARY) for path in ("/srv/pgdata/evil.so", "/tmp/evil.so", "/dev/shm/evil.so")]
    statements = [*libraries, *PROBES.values(), *INSTANCE_PROBES.values()]
    code = [*NATIVE.values(), *(text for text, _ in VIEWS.values())]
    service.psql(
        theirs,
        "\n".join(
            f"INSERT INTO answers SELECT {quoted(asked)}, {function}({quoted(asked)});"
            for function, each in (("back_door", statements), ("native", code))
            for asked in each
        ),
    )
    found: dict[str, str] = json.loads(service.answer(theirs, "SELECT json_object_agg(asked, answer) FROM answers"))
    return found


@pytest.fixture(scope="module")
def probed(service: Service, theirs: int) -> dict[str, str]:
    """Provide the result of each probe of native code, run by a backend of their Postgres."""
    source = Path(inside.__file__).read_text()
    program = f"{source}\nsys.argv = ['', '{MAJOR}', '/srv/pgdata/probes.json']\nmain()\n"
    assert service.answer(theirs, f"SELECT native({quoted(program)})") == "done: None"
    found: dict[str, str] = json.loads(service.answer(theirs, "SELECT pg_read_file('/srv/pgdata/probes.json')"))
    return found


def test_a_superuser_needs_the_permission_of_the_operator(service: Service, image: int) -> None:
    assert error_of(create(service, image)) == (422, "superuser_not_allowed")
    assert service.ask("GET", "/instances").json() == {"data": []}


@pytest.mark.usefixtures("_allowed")
def test_the_client_creates_and_shows_a_superuser(service: Service, image: int) -> None:
    made = json.loads(service.client("--output", "json", "instances", "create", str(image), "--superuser").stdout)
    assert made["attributes"]["superuser"] is True
    instance_id = int(made["id"])
    assert is_superuser(service, instance_id) == "on"
    assert re.search("^Superuser: +yes$", service.client("instances", "show", str(instance_id)).stdout, re.MULTILINE)
    assert promotions() == []
    service.destroy_instance(instance_id)


@pytest.mark.usefixtures("_allowed")
def test_a_restart_does_not_make_a_superuser_again(service: Service, image: int) -> None:
    instance_id = int(create(service, image).json()["data"]["id"])
    service.client("instances", "restart", str(instance_id))
    assert is_superuser(service, instance_id) == "on"
    service.psql(instance_id, "ALTER ROLE draupnir NOSUPERUSER")
    service.client("instances", "restart", str(instance_id))
    assert is_superuser(service, instance_id) == "off"
    service.destroy_instance(instance_id)


@contextmanager
def promoting(*lines: str) -> Iterator[None]:
    """Change the unit that makes a superuser during the block."""
    drop_in = DROP_INS / "99-test.conf"
    DROP_INS.mkdir(parents=True)
    try:
        drop_in.write_text("\n".join(["[Service]", *lines]))
        run("systemctl", "daemon-reload")
        yield
    finally:
        shutil.rmtree(DROP_INS)
        run("systemctl", "daemon-reload")


@pytest.mark.usefixtures("_allowed")
def test_an_instance_whose_superuser_cannot_be_made_is_not_created(service: Service, image: int) -> None:
    with promoting("StandardInputText=", "StandardInputText=ALTER ROLE nobody_at_all SUPERUSER"):
        answer = create(service, image)
    assert error_of(answer) == (500, "unit_failed")
    assert service.ask("GET", "/instances").json() == {"data": []}


@pytest.mark.parametrize("victim", ["the helper", "the promotion"])
@pytest.mark.usefixtures("_allowed")
def test_a_creation_that_is_killed_makes_a_superuser_or_nothing(service: Service, image: int, victim: str) -> None:
    made: list[httpx.Response] = []
    creation = threading.Thread(target=lambda: made.append(create(service, image)))
    with promoting("ExecStartPre=/usr/bin/sleep 3600"):
        creation.start()
        unit = await_promotion()
    kill(HELPER) if victim == "the helper" else run("systemctl", "kill", "--signal=KILL", unit)
    creation.join()
    (answer,) = made
    listed = service.ask("GET", "/instances").json()["data"]
    assert len(listed) == (answer.status_code == 201), answer.text
    for instance in listed:
        assert is_superuser(service, instance["id"]) == "on"
        service.destroy_instance(instance["id"])
    assert promotions() == []


def test_the_back_doors_are_open_or_the_probes_would_prove_nothing(
    answers: dict[str, str], probed: dict[str, str]
) -> None:
    for path in ("/srv/pgdata/evil.so", "/tmp/evil.so", "/dev/shm/evil.so"):
        assert answers[writing(path, LIBRARY)].startswith("done")
    assert probed["a program of Postgres's"] == "done"


def test_sql_of_a_superuser_reaches_nothing_outside(answers: dict[str, str]) -> None:
    # The sandbox of an instance has a socket for the log in its place.
    asked = {name: sql for name, sql in (PROBES | INSTANCE_PROBES).items() if name != "the journal's socket"}
    assert {name: answers[sql] for name, sql in asked.items() if not answers[sql].startswith("refused: ")} == {}


def test_native_code_of_a_superuser_reaches_nothing_outside(answers: dict[str, str]) -> None:
    refused = re.compile(r"refused: (\w*Error|timeout)\(")
    assert {name: answers[code] for name, code in NATIVE.items() if not refused.match(answers[code])} == {}


def test_native_code_of_a_superuser_makes_no_code_and_no_system_call_that_is_forbidden(probed: dict[str, str]) -> None:
    assert probed.keys() >= inside.probes(str(MAJOR)).keys()
    assert {name for name, answer in probed.items() if answer != "refused"} == {"a program of Postgres's"}


def test_native_code_of_a_superuser_sees_only_its_own_postgres(answers: dict[str, str]) -> None:
    for code, expected in VIEWS.values():
        assert re.fullmatch(f"done: ({expected})", answers[code]), answers[code]


@pytest.mark.usefixtures("answers", "probed")
def test_nothing_escaped_from_the_sandbox(bystanders: aftermath.Bystanders) -> None:
    for directory in ("/etc", "/usr/lib", "/run", "/run/userdb", "/srv", "/var/lib"):
        assert not list(Path(directory).glob("draupnir-escaped*"))
    bystanders.check()


@pytest.mark.usefixtures("_allowed")
def test_a_superuser_who_changes_the_configuration_changes_neither_access_nor_libraries(
    service: Service, image: int
) -> None:
    instance_id = int(create(service, image).json()["data"]["id"])
    rows = " UNION ALL ".join(f"SELECT {quoted(line)}" for line in CONFIGURATION.strip().splitlines())
    service.psql(instance_id, f"COPY ({rows}) TO '/srv/pgdata/postgresql.auto.conf'")
    service.psql(instance_id, "COPY (SELECT 'host all all all trust') TO '/srv/pgdata/their_hba.conf'")
    service.client("instances", "restart", str(instance_id))
    assert service.answer(instance_id, "SHOW work_mem") == "5MB", "Postgres reads the file"
    shown = (
        "port",
        "listen_addresses",
        "ssl",
        "hba_file",
        "shared_preload_libraries",
        "archive_mode",
        "data_directory",
    )
    found = service.answer(instance_id, "SELECT " + ", ".join(f"current_setting('{name}')" for name in shown))
    assert found == "5432|127.0.0.1|on|/run/draupnir/instance/pg_hba.conf||off|/srv/pgdata"
    for environment in ({"PGSSLMODE": "disable"}, {"PGSSLCERT": "/nonexistent", "PGSSLKEY": "/nonexistent"}):
        refused = service.psql(instance_id, "SELECT 1", ok=False, **environment)
        assert re.search("pg_hba.conf rejects|requires a valid client certificate", refused.stderr), refused.stderr
    service.destroy_instance(instance_id)


@pytest.mark.usefixtures("_allowed")
def test_a_superuser_can_break_only_their_own_instance(service: Service, image: int) -> None:
    instance_id = int(create(service, image).json()["data"]["id"])
    service.psql(
        instance_id,
        "CREATE ROLE other SUPERUSER LOGIN; UPDATE pg_authid SET rolcanlogin = false WHERE rolname = 'draupnir'",
    )
    assert service.psql(instance_id, "SELECT 1", ok=False).returncode != 0
    service.client("instances", "restart", str(instance_id))
    assert "is not permitted to log in" in service.psql(instance_id, "SELECT 1", ok=False).stderr
    service.destroy_instance(instance_id)
    assert not (DATA / f"instances/{instance_id}").exists()
