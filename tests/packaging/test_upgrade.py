"""What apt does to a running service: an upgrade that nobody notices, and a purge that deletes no database."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    """The identities of the sockets that clients of the API and of the helper connect to."""
    api = output_of("ss", "--listening", "--tcp", "--numeric", "--extended", "--no-header", "sport = :8432")
    helper = output_of("ss", "--listening", "--unix", "--no-header", "src /run/draupnir-helper.sock")
    return {*re.findall(r"ino:\d+", api), *helper.split()}


@pytest.fixture
def packages() -> Iterator[list[str]]:
    """The packages under test; whatever the test does to them, they are installed again afterwards."""
    found = [str(path) for path in sorted(DIST.glob("*.deb"))]
    yield found
    apt("install", "--allow-downgrades", *found)
    output_of("draupnir", "doctor")


@pytest.fixture
def next_version(tmp_path: Path, packages: list[str]) -> list[str]:
    """The same packages with a higher version number."""
    made = []
    for package in packages:
        tree = tmp_path / Path(package).name.partition("_")[0]
        output_of("dpkg-deb", "--raw-extract", package, str(tree))
        control = tree / "DEBIAN/control"
        control.write_text(re.sub(r"^(Version: .*)", r"\1+next", control.read_text(), flags=re.MULTILINE))
        output_of("dpkg-deb", "--build", str(tree), f"{tree}.deb")
        made.append(f"{tree}.deb")
    return made


@pytest.fixture
def instance() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a unit with the name of an instance: a scope, for the services' sandbox suits only Postgres."""
    with subprocess.Popen(
        ["systemd-run", "--quiet", "--scope", "--unit=draupnir-instance-999", "sleep", "inf"]
    ) as process:
        yield process
        process.kill()


def test_an_upgrade_replaces_the_services_and_nothing_else(
    next_version: list[str], instance: subprocess.Popen[bytes]
) -> None:
    daemon, metadata = main_pid("draupnir"), main_pid("draupnir-metadata")
    listening = sockets()
    secret = Path("/etc/draupnir/shared_secret").read_bytes()

    apt("install", *next_version)

    assert instance.poll() is None
    assert main_pid("draupnir") != daemon
    assert main_pid("draupnir-metadata") == metadata
    assert sockets() == listening
    assert Path("/etc/draupnir/shared_secret").read_bytes() == secret
    output_of("curl", "--fail", "--silent", "http://127.0.0.1:8432/health_check")


def test_a_purge_takes_all_but_the_databases_and_says_where_they_are(
    packages: list[str], instance: subprocess.Popen[bytes]
) -> None:
    said = apt("purge", "draupnir", "draupnir-client")

    assert instance.wait(timeout=10) != 0
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
