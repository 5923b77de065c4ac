"""apt and a running service: an upgrade without interruption, and a purge that deletes no database."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.faults import await_that
from tests.system.service import Service, Session
from tests.system.world import processes

DIST = Path(__file__).parents[2] / "dist"

pytestmark = pytest.mark.skipif(
    not Path("/usr/lib/systemd/system/draupnir.service").exists(), reason="the packages are not installed here"
)


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def apt(verb: str, *packages: str) -> str:
    options = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "--quiet")
    done = subprocess.run([*options, verb, *packages], check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def main_pid(unit: str) -> str:
    return output_of("systemctl", "show", "--property=MainPID", "--value", unit).strip()


def sockets() -> set[str]:
    """Return the identities of the listening sockets of the API and the helper."""
    api = output_of("ss", "--listening", "--tcp", "--numeric", "--extended", "--no-header", "sport = :8432")
    helper = output_of("ss", "--listening", "--unix", "--no-header", "src /run/draupnir-helper.sock")
    return {*re.findall(r"ino:\d+", api), *helper.split()}


@pytest.fixture
def packages() -> Iterator[list[str]]:
    """Provide the packages under test, and install them again afterwards."""
    found = [str(path) for path in sorted(DIST.glob("*.deb"))]
    yield found
    apt("install", "--allow-downgrades", *found)
    output_of("draupnir", "doctor")


@pytest.fixture
def next_version(tmp_path: Path, packages: list[str]) -> list[str]:
    """Provide the same packages with a higher version number."""
    made = []
    for package in packages:
        tree = tmp_path / Path(package).name.partition("_")[0]
        output_of("dpkg-deb", "--raw-extract", package, str(tree))
        control = tree / "DEBIAN/control"
        control.write_text(re.sub(r"^(Version: .*)", r"\1+next", control.read_text(), flags=re.MULTILINE))
        output_of("dpkg-deb", "--build", str(tree), f"{tree}.deb")
        made.append(f"{tree}.deb")
    return made


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide an upload key; the purge removes it from the server."""
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    output_of("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
    output_of("draupnir", "upload-key", "add", f"{path}.pub")
    return path


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a backup of this machine's own Postgres."""
    path = tmp_path_factory.mktemp("backup") / "base.tar"
    with path.open("wb") as file:
        command = ["runuser", "-u", "postgres", "--", "pg_basebackup", "-c", "fast", "-X", "fetch", "-Ft", "-D", "-"]
        subprocess.run(command, check=True, stdout=file, cwd="/")
    return path


@pytest.fixture(scope="module")
def instance(key: Path, backup: Path) -> Iterator[int]:
    """Provide an instance of the backup, destroyed at the end."""
    service = Service(key)
    image_id = service.make_image(backup, script="SELECT 1;")
    yield int(service.create_instance(image_id)["id"])
    # The purge replaces the secret.
    Service(key).destroy_image(image_id)


@pytest.fixture
def upload(key: Path, backup: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start an upload that takes minutes."""
    service = Service(key)
    image_id = service.create_image()
    target = f"upload@localhost:/draupnir/image_uploads/{image_id}"
    arrived = Path(f"/srv/draupnir/chroot/draupnir/image_uploads/{image_id}/{backup.name}")
    with subprocess.Popen(["scp", "-q", "-l", "1000", *service.ssh_options(), backup, target]) as sending:
        await_that(lambda: arrived.exists() and arrived.stat().st_size > 0, "the upload has begun")
        yield sending
        sending.kill()
    Service(key).destroy_image(image_id)


def test_an_upgrade_replaces_the_services_and_stops_no_instance(
    next_version: list[str], key: Path, instance: int
) -> None:
    session = Session(Service(key), instance, "postgres")
    backend = session.answer("SELECT pg_backend_pid();")
    assert re.fullmatch("[0-9]+", backend)
    daemon, metadata = main_pid("draupnir"), main_pid("draupnir-metadata")
    listening = sockets()
    secret = Path("/etc/draupnir/shared_secret").read_bytes()

    apt("install", *next_version)

    assert session.answer("SELECT pg_backend_pid();") == backend
    session.close()
    assert main_pid("draupnir") != daemon
    assert main_pid("draupnir-metadata") == metadata
    assert sockets() == listening
    assert Path("/etc/draupnir/shared_secret").read_bytes() == secret
    output_of("curl", "--fail", "--silent", "http://127.0.0.1:8432/health_check")


def test_a_purge_keeps_the_databases_and_reports_their_place(
    upload: subprocess.Popen[bytes], packages: list[str], key: Path, instance: int
) -> None:
    Service(key).psql(instance, "CREATE TABLE kept AS SELECT 42 AS answer", "postgres")
    assert processes() != set()

    said = apt("purge", "draupnir", "draupnir-client")

    assert upload.wait(timeout=300) != 0
    assert processes() == set()
    for kept in ("/var/lib/draupnir/data.btrfs", "/var/lib/draupnir/metadata"):
        assert Path(kept).exists()
        assert re.search(rf"^    rm (-r )?{kept}$", said, re.MULTILINE)
    for gone in ("/etc/draupnir", "/run/draupnir", "/run/draupnir-helper.sock", "/srv/draupnir"):
        assert not Path(gone).exists(), gone
    assert "/var/lib/draupnir/data.btrfs" not in output_of("findmnt", "--noheadings", "--output=SOURCE")
    active = output_of("systemctl", "list-units", "--plain", "--no-legend", "draupnir*.service", "draupnir*.socket")
    assert active == ""
    effective = output_of("/usr/sbin/sshd", "-T", "-C", "user=upload,host=localhost,addr=127.0.0.1")
    assert "chrootdirectory none" in effective

    apt("install", *packages)
    await_that(
        lambda: Service(key).psql(instance, "SELECT answer FROM kept", "postgres", ok=False).stdout.strip() == "42",
        "the instance is back with its data",
    )
