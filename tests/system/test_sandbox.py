"""The sandbox confines even an SQL superuser, in an instance and in the script of an image.

The script of an image runs as superuser; in the instance, root makes the user one. SQL roles are not the defence here;
the sandbox and the uid are.
"""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from draupnir_helper.jobs import rows
from draupnir_helper.layout import Place
from tests.hostile.superuser import become_superuser
from tests.system import world
from tests.system.backups import MAJOR
from tests.system.faults import HELPER, await_that, main_pid, traced
from tests.system.service import ANONYMISE, Service, run
from tests.system.world import DATA

CANARY_PORT = 15432
LIBRARY = f"/usr/lib/postgresql/{MAJOR}/lib/pg_trgm.so"


def writing(path: str, source: str = "/etc/hostname") -> str:
    """Return a statement that copies a file, as the operating system's user of Postgres."""
    return (
        f"DO $write$ DECLARE copied oid := lo_from_bytea(0, pg_read_binary_file('{source}'));"
        f" BEGIN PERFORM lo_export(copied, '{path}'); END $write$"
    )


PROBES = {
    # Programs.
    "a program of the system": "COPY (SELECT 1) TO PROGRAM '/usr/bin/id'",
    "a shell": "COPY (SELECT 1) TO PROGRAM 'exec 3<>/dev/tcp/127.0.0.1/8432'",
    "a library in the data directory": "LOAD '/srv/pgdata/evil.so'",
    "a library in /tmp": "LOAD '/tmp/evil.so'",
    "a library in /dev/shm": "LOAD '/dev/shm/evil.so'",
    "a function of its own library": "CREATE FUNCTION e() RETURNS int LANGUAGE c AS '/srv/pgdata/evil.so', 'show_trgm'",
    # Secrets and files of others.
    "shadow": "SELECT pg_read_file('/etc/shadow')",
    "the shared secret": "SELECT pg_read_file('/etc/draupnir/shared_secret')",
    "ssh host keys": "SELECT pg_read_file('/etc/ssh/ssh_host_ed25519_key')",
    "the configuration": "SELECT pg_ls_dir('/etc/draupnir')",
    "the home of root": "SELECT pg_read_file('/root/.ssh/id_ed25519')",
    "the data disk": "SELECT pg_ls_dir('/srv/draupnir/instances')",
    "the data disk by its link": "SELECT pg_ls_dir('/run/draupnir/data/instances')",
    "the run directory of others": "SELECT pg_ls_dir('/run/draupnir/instances')",
    "the metadata": "SELECT pg_ls_dir('/var/lib/draupnir/metadata')",
    "the embedded disk": "SELECT pg_read_binary_file('/var/lib/draupnir/data.btrfs', 0, 10)",
    "a block device": "SELECT pg_read_binary_file('/dev/loop0', 0, 10)",
    "the memory of the machine": "SELECT pg_read_binary_file('/dev/mem', 0, 10)",
    "the journal": "SELECT pg_ls_dir('/var/log')",
    "the environment of PID 1": "SELECT pg_read_file('/proc/1/root/etc/shadow')",
    "the host's Postgres": "SELECT pg_ls_dir('/var/lib/postgresql')",
    "the embedded disk's directory": "SELECT pg_ls_dir('/var/lib/draupnir')",
    "credentials of services": "SELECT pg_ls_dir('/run/credentials')",
    "units of systemd": "SELECT pg_ls_dir('/run/systemd/system')",
    "the run directory of its own parent": "SELECT pg_ls_dir('/run/draupnir/instance/../instances')",
    "the control of loop devices": "SELECT pg_read_binary_file('/dev/loop-control', 0, 1)",
    "the control of btrfs": "SELECT pg_read_binary_file('/dev/btrfs-control', 0, 1)",
    "the log of the kernel": "SELECT pg_read_binary_file('/dev/kmsg', 0, 1)",
    "the core of the kernel": "SELECT pg_read_binary_file('/proc/kcore', 0, 1)",
    "keys of the kernel": "SELECT pg_read_file('/proc/keys')",
    "symbols of the kernel": "SELECT pg_read_file('/proc/kallsyms', 0, 1)",
    "mounts of others": "SELECT pg_read_file('/proc/1/task/../../2/mounts')",
    "connections of the machine": "SELECT pg_read_file('/proc/net/tcp')",
    # Writing outside.
    "a file in /etc": writing("/etc/draupnir-escaped"),
    "a file in /usr": writing("/usr/lib/draupnir-escaped"),
    "a file in /run": writing("/run/draupnir-escaped"),
    "a file in /srv": writing("/srv/draupnir-escaped"),
    "a file in /var": writing("/var/lib/draupnir-escaped"),
    "a core pattern": writing("/proc/sys/kernel/core_pattern"),
    "a control group": writing("/sys/fs/cgroup/cgroup.procs"),
    "the trigger of the kernel": "COPY (SELECT 'b') TO '/proc/sysrq-trigger'",
    "its own limits": writing("/sys/fs/cgroup/memory.max"),
    "another root's users": writing("/run/userdb/escaped.user"),
    "a unit": writing("/run/systemd/system/draupnir-escaped.service"),
    "its own key": "COPY (SELECT 'x') TO '/run/draupnir/instance/server.key'",
    "its own configuration": "COPY (SELECT 'x') TO '/run/draupnir/instance/postgresql.conf'",
    "its own script": "COPY (SELECT 'x') TO '/run/draupnir/image/anonymisation_script.sql'",
    # Sockets.
    "the API": "SELECT dblink_connect('host=127.0.0.1 port=8432 connect_timeout=3')",
    "a server on the host": f"SELECT dblink_connect('host=127.0.0.1 port={CANARY_PORT} connect_timeout=3')",
    "the API on IPv6": "SELECT dblink_connect('host=::1 port=8432 connect_timeout=3')",
    "ssh": "SELECT dblink_connect('host=127.0.0.1 port=22 connect_timeout=3')",
    "the metadata of a cloud": "SELECT dblink_connect('host=169.254.169.254 port=80 connect_timeout=3')",
    "a name": "SELECT dblink_connect('host=production.example connect_timeout=3')",
    "the host's Postgres by its socket": "SELECT dblink_connect('host=/run/postgresql user=postgres dbname=postgres')",
    "an abstract socket": "SELECT dblink_connect('host=@/org/freedesktop/systemd1/notify user=x')",
    "production": "SELECT dblink_connect('host=10.9.8.7 connect_timeout=3')",
    "the metadata's socket": "SELECT dblink_connect('host=/run/draupnir-metadata user=draupnir dbname=draupnir')",
    "the helper's socket": "SELECT pg_stat_file('/run/draupnir-helper.sock')::text",
    "the bus": "SELECT pg_stat_file('/run/dbus/system_bus_socket')::text",
    "systemd's own socket": "SELECT pg_stat_file('/run/systemd/private')::text",
    "the journal's socket": "SELECT pg_stat_file('/run/systemd/journal/socket')::text",
    # Settings that the command line fixes.
    "an archive command": "ALTER SYSTEM SET archive_command = 'id'",
    "a library to load at the start": "ALTER SYSTEM SET shared_preload_libraries = '/srv/pgdata/evil.so'",
    "rules of its own for who gets in": "ALTER SYSTEM SET hba_file = '/srv/pgdata/evil.conf'",
    "another address": "ALTER SYSTEM SET listen_addresses = '*'",
}  # fmt: skip

# The script's sandbox shows the machine's programs and configuration, except secrets.
INSTANCE_PROBES = {
    "the list of users": "SELECT pg_read_file('/etc/passwd')",
    # The directory exists for another sandbox with the same root, and is empty.
    "the host's programs": "SELECT pg_stat_file('/usr/bin/python3')",
}

# The only visible content of each sandbox.
VIEWS = {
    "the run directory": (
        "SELECT string_agg(x, ' ' ORDER BY x) FROM pg_ls_dir('/run') x",
        r"draupnir( host)?( lock)? systemd( userdb)?",
    ),
    "the service directory": ("SELECT string_agg(x, ' ' ORDER BY x) FROM pg_ls_dir('/srv') x", "pgdata"),
    "home directories": ("SELECT count(*) FROM pg_ls_dir('/home') x", "0"),
    "interfaces": ("SELECT string_agg(x, ' ') FROM pg_ls_dir('/sys/class/net') x", "lo|"),
    "processes of others": (
        "SELECT string_agg(DISTINCT pg_read_file('/proc/' || x || '/comm'), ' ')"
        " FROM pg_ls_dir('/proc') x WHERE x ~ '^[0-9]+$'",
        r"((postgres|psql|python3)\s*)+",
    ),
}

BACK_DOOR = """
\\c my_db
CREATE EXTENSION dblink;
CREATE FUNCTION back_door(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
  IF statement LIKE 'SELECT%' THEN EXECUTE statement INTO result; ELSE EXECUTE statement; END IF;
  RETURN 'done: ' || coalesce(result, '');
EXCEPTION WHEN OTHERS THEN RETURN 'refused: ' || SQLERRM;
END $$;
CREATE TABLE answers (place text, statement text, answer text);
"""


def quoted(text: str) -> str:
    return "$probe$" + text + "$probe$"


@dataclass(frozen=True)
class Hostile:
    """An instance of a hostile image, and the results of its superuser there and in the script."""

    instance_id: int
    answers: dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def canary() -> Iterator[list[str]]:
    """Provide a server on the host's loopback that no sandbox may reach, and its connections."""
    seen: list[str] = []
    listener = socket.create_server(("127.0.0.1", CANARY_PORT))

    def listen() -> None:
        with suppress(OSError):
            while True:
                connection, address = listener.accept()
                seen.append(str(address))
                connection.close()

    thread = threading.Thread(target=listen)
    thread.start()
    yield seen
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def hostile(service: Service, backup: Path, image: int, canary: list[str]) -> Iterator[Hostile]:
    world.await_quiet()
    before = world.observe()
    libraries = [writing(path, LIBRARY) for path in ("/srv/pgdata/evil.so", "/tmp/evil.so", "/dev/shm/evil.so")]
    statements = [
        *libraries,
        *PROBES.values(),
        *INSTANCE_PROBES.values(),
        *(statement for statement, _ in VIEWS.values()),
    ]

    def asking(place: str) -> str:
        return "\n".join(f"INSERT INTO answers SELECT '{place}', {s}, back_door({s});" for s in map(quoted, statements))

    image_id = service.make_image(backup, "\n".join([ANONYMISE, BACK_DOOR, asking("script")]))
    instance_id = int(service.create_instance(image_id)["id"])
    become_superuser(service, instance_id)
    service.psql(instance_id, asking("instance"))
    found = json.loads(service.answer(instance_id, "SELECT json_agg(answers) FROM answers"))
    answers = {(each["place"], each["statement"]): each["answer"] for each in found}
    yield Hostile(instance_id, answers)
    service.destroy_image(image_id)
    world.await_equal(before)


@pytest.mark.parametrize("place", ["script", "instance"])
def test_the_back_door_is_open_or_the_probes_would_prove_nothing(hostile: Hostile, place: str) -> None:
    for path in ("/srv/pgdata/evil.so", "/tmp/evil.so", "/dev/shm/evil.so"):
        assert hostile.answers[place, writing(path, LIBRARY)].startswith("done")


# The log namespace adds its own socket to the sandbox of instances, without the server's socket.
IN_A_JOB = {"the journal's socket"}


@pytest.mark.parametrize(
    ("place", "name"),
    [(place, name) for place in ("script", "instance") for name in PROBES if place == "script" or name not in IN_A_JOB],
)
def test_a_superuser_in_a_sandbox_does_not_reach(hostile: Hostile, place: str, name: str) -> None:
    assert hostile.answers[place, PROBES[name]].startswith("refused: ")


@pytest.mark.parametrize("name", INSTANCE_PROBES)
def test_a_superuser_in_an_instance_does_not_reach(hostile: Hostile, name: str) -> None:
    assert hostile.answers["instance", INSTANCE_PROBES[name]].startswith("refused: ")


@pytest.mark.parametrize("place", ["script", "instance"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_superuser_in_a_sandbox_sees_no_more_than(hostile: Hostile, place: str, name: str) -> None:
    statement, expected = VIEWS[name]
    answer = hostile.answers[place, statement]
    assert answer.startswith("refused: ") or re.fullmatch(f"done: ({expected})", answer), answer


def test_nothing_escaped_from_the_sandboxes(hostile: Hostile, canary: list[str]) -> None:
    assert canary == []
    for directory in ("/etc", "/usr/lib", "/run", "/srv", "/var/lib"):
        assert not Path(directory, "draupnir-escaped").exists()


def uid_of(instance_id: int) -> int:
    return world.FIRST_UID + 0x04000000 + instance_id


def as_instance(instance_id: int, *command: str | Path, ok: bool = True) -> str:
    """Run a command with the identity of the instance outside of its sandbox, which is more than it can do inside."""
    uid = uid_of(instance_id)
    return run("setpriv", f"--reuid={uid}", f"--regid={uid}", "--groups=draupnir-data", *command, ok=ok, cwd="/").stdout


def test_an_instance_reaches_no_other_instance_s_data(service: Service, image: int, instance: int) -> None:
    other = int(service.create_instance(image)["id"])
    mine, foreign = DATA / f"instances/{instance}", DATA / f"instances/{other}"
    assert "PG_VERSION" in as_instance(instance, "ls", mine)
    assert as_instance(instance, "ls", foreign, ok=False) == ""
    for path in (DATA / f"image_snapshots/{image}", f"/run/draupnir/instances/{other}", DATA / "instances"):
        assert as_instance(instance, "ls", path, ok=False) == ""
    assert as_instance(instance, "cat", f"/run/draupnir/instances/{other}/server.key", ok=False) == ""
    service.destroy_instance(other)


def nest(service: Service, instance_id: int, top: Path) -> None:
    """Subvolumes in subvolumes, some below directories, some read-only."""
    for number in range(3):
        as_instance(instance_id, "btrfs", "subvolume", "create", top / f"nested-{number}")
        as_instance(instance_id, "mkdir", "-p", top / f"nested-{number}/a/b")
        as_instance(instance_id, "btrfs", "subvolume", "create", top / f"nested-{number}/a/b/deeper")
        as_instance(instance_id, "btrfs", "property", "set", "-ts", top / f"nested-{number}/a/b/deeper", "ro", "true")
        as_instance(instance_id, "btrfs", "property", "set", "-ts", top / f"nested-{number}", "ro", "true")


def nest_deeply(service: Service, instance_id: int, top: Path) -> None:
    """Deeper than the limits of recursion and open files."""
    program = (
        "import fcntl, os, struct, sys\n"
        "os.chdir(sys.argv[1])\n"
        "for _ in range(1500):\n"
        "    here = os.open('.', os.O_RDONLY)\n"
        "    fcntl.ioctl(here, 0x5000940E, bytearray(struct.pack('=q4088s', 0, b'n')))\n"
        "    os.close(here)\n"
        "    os.chdir('n')\n"
    )
    as_instance(instance_id, "python3", "-c", program, top)


def nest_far_down(service: Service, instance_id: int, top: Path) -> None:
    """Below a path that is too long for the kernel's answer, twice, and among many other directories."""
    program = (
        "import fcntl, os, struct, sys\n"
        "os.chdir(sys.argv[1])\n"
        "for _ in range(2):\n"
        "    for _ in range(30):\n"
        "        for name in ('before', 'x' * 200, 'z'):\n"
        "            os.mkdir(name)\n"
        "        os.chdir('x' * 200)\n"
        "    here = os.open('.', os.O_RDONLY)\n"
        "    for name in (b'n', b'm'):\n"
        "        fcntl.ioctl(here, 0x5000940E, bytearray(struct.pack('=q4088s', 0, name)))\n"
        "    os.symlink('/etc', 'a')\n"
        "    os.close(here)\n"
        "    os.chdir('n')\n"
    )
    as_instance(instance_id, "python3", "-c", program, top)


def nest_widely(service: Service, instance_id: int, top: Path) -> None:
    """More than the kernel returns in one answer."""
    as_instance(instance_id, "btrfs", "subvolume", "create", *(top / f"wide-{number}" for number in range(600)))


def close_everything(service: Service, instance_id: int, top: Path) -> None:
    as_instance(instance_id, "sh", "-c", f"find {top} -mindepth 1 -user {uid_of(instance_id)} -exec chmod 0 {{}} +")
    as_instance(instance_id, "chmod", "0", top)


def make_read_only(service: Service, instance_id: int, top: Path) -> None:
    as_instance(instance_id, "btrfs", "property", "set", "-ts", top, "ro", "true")


def plant_links(service: Service, instance_id: int, top: Path) -> None:
    """Links where a careless root would write, chown or delete."""
    for name in ("postgresql.conf", "pg_hba.conf", "postmaster.pid", "server.key", "pg_wal.link"):
        as_instance(instance_id, "ln", "-sfn", "/etc/draupnir", top / name)
    as_instance(instance_id, "sh", "-c", f"mv {top}/base {top}/base.old && ln -s /etc {top}/base")


@pytest.mark.parametrize(
    "spoil",
    [nest, nest_deeply, nest_far_down, nest_widely, close_everything, make_read_only, plant_links],
    ids=lambda f: f.__name__,
)
def test_an_instance_can_be_destroyed_whatever_it_does_to_its_data(service: Service, image: int, spoil: object) -> None:
    assert callable(spoil)
    instance_id = int(service.create_instance(image)["id"])
    service.answer(instance_id, "SELECT 1")
    before = state_of_etc()
    spoil(service, instance_id, DATA / f"instances/{instance_id}")
    service.destroy_instance(instance_id)
    await_that(lambda: not any((DATA / "trash").iterdir()), "the trash is empty")
    assert state_of_etc() == before


def test_a_full_instance_is_destroyed_with_its_nested_subvolumes(service: Service, image: int) -> None:
    """The deletion starts with a move, which writes."""
    answer = service.ask("POST", "/instances", {"image_id": image, "max_bytes": 256 * 1024 * 1024})
    instance_id = int(answer.json()["data"]["id"])
    top = DATA / f"instances/{instance_id}"
    for path in (top / "nested", top / "nested/deeper"):
        as_instance(instance_id, "btrfs", "subvolume", "create", path)
    until_refused = f"dd if=/dev/zero of={top}/big bs=1M; i=0; while : >{top}/$i; do i=$((i+1)); done"
    as_instance(instance_id, "sh", "-c", until_refused, ok=False)
    service.destroy_instance(instance_id)
    await_that(lambda: not any((DATA / "trash").iterdir()), "the trash is empty")


def state_of_etc() -> set[tuple[str, int, int, int]]:
    found = set()
    for path in (
        "/etc",
        "/etc/draupnir",
        *map(str, Path("/etc/draupnir").iterdir()),
    ):
        status = os.lstat(path)
        found.add((path, status.st_uid, status.st_mode, status.st_size))
    return found


def test_no_file_of_the_data_disk_is_open_to_other_users(
    service: Service, image: int, instance: int, backup: Path
) -> None:
    service.answer(instance, "CREATE TABLE t AS SELECT 1")
    awaiting = service.create_image()
    service.upload(awaiting, backup)
    # Others reach nothing below a directory that they cannot enter. The trash may still be deleted.
    reached: list[str | Path] = ["find", DATA, "-ignore_readdir_race", "-mindepth", "1"]
    reached += ["(", "-perm", "/o+rwx", "-printf", "%y %m %P\n", "-o", "-true", ")"]
    found = run(*reached, "-type", "d", "!", "-perm", "/o+x", "-prune").stdout.splitlines()
    # Directories of root with only the x bit; and the marker, which is not secret.
    places = {line.split(" ", 2)[2] for line in found if line.startswith("d 711 ")}
    assert [line for line in found if not line.startswith("d 711 ")] in ([], ["f 644 .draupnir-filesystem-id"])
    assert places <= {"chroot", "chroot/draupnir", *world.PLACES}
    for place in places:
        assert (DATA / place).stat().st_uid == 0
    service.destroy_image(awaiting)


SOCKETS = ("/run/draupnir-helper.sock", "/run/draupnir-metadata/.s.PGSQL.5432")


@pytest.mark.parametrize("user", ["nobody", "upload", "postgres"])
def test_another_user_of_the_machine_reaches_neither_sockets_nor_data(
    service: Service, image: int, instance: int, user: str
) -> None:
    def attempt(*command: str | Path) -> int:
        return run("runuser", "-u", user, "--", *command, ok=False, cwd="/").returncode

    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    for socket_path in SOCKETS:
        assert attempt("python3", "-c", connect, socket_path) != 0, socket_path
    for path in (DATA, DATA / f"instances/{instance}", DATA / f"image_snapshots/{image}", DATA / "trash"):
        assert attempt("ls", path) != 0, path
    for secret in ("/etc/draupnir/shared_secret", f"/run/draupnir/instances/{instance}/server.key"):
        assert attempt("cat", secret) != 0, secret
    assert attempt("ls", "/var/lib/draupnir/metadata/cluster") != 0
    assert stat.S_IMODE(Path("/var/lib/draupnir/data.btrfs").stat().st_mode) & 0o077 == 0


OPENED_BELOW = re.compile(
    r"</srv/draupnir/(?:chroot/draupnir/image_uploads|seals|work|image_snapshots|instances)/[0-9]+(/[^>]*)?>, \""
    r"|\"/(?:srv/draupnir|run/draupnir/data)/(?:chroot/draupnir/image_uploads|seals|work|image_snapshots|instances)/[0-9]+/"
)


def test_the_helper_opens_nothing_below_what_untrusted_code_has_written(
    service: Service, backup: Path, tmp_path: Path
) -> None:
    log = tmp_path / "strace"
    calls = "%file,openat,unlinkat,renameat,renameat2,fchownat,fchmodat,mkdirat,getdents64"
    with traced(HELPER, ["strace", "-f", "-q", "-y", "-s", "200", "-e", f"trace={calls}", "-o", str(log)]):
        image_id = service.make_image(backup)
        instance_id = int(service.create_instance(image_id)["id"])
        service.answer(instance_id, "SELECT 1")
        service.destroy_instance(instance_id)
        service.destroy_image(image_id)
    lines = log.read_text(errors="replace").splitlines()
    assert any("image_snapshots" in line for line in lines), "strace saw the helper at work"
    opened = [line for line in lines if OPENED_BELOW.search(line)]
    # Only the report of a finalise is read there, and no link or pipe in its place. Then it is removed.
    flags = r"O_RDONLY\|O_NONBLOCK\|O_NOFOLLOW\|O_CLOEXEC"
    place = rf'\(\d+<{DATA}/{Place.WORK}/\d+>, "\{rows.NAME}", '
    # strace writes the end of a call on another line if another thread comes between.
    safely = re.compile(rf"(openat{place}{flags}|unlinkat{place}0)(\)| <unfinished)")
    assert [line for line in opened if not safely.search(line)] == []
    assert opened


def test_the_proxy_runs_as_the_instance_s_own_user(service: Service, instance: int) -> None:
    service.answer(instance, "SELECT 1")
    for unit in (f"draupnir-port-{instance}.service", f"draupnir-instance-{instance}.service"):
        assert f"Uid:\t{uid_of(instance)}\t" in Path(f"/proc/{main_pid(unit)}/status").read_text()
