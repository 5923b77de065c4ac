"""What the benchmarks ask of the service: over HTTP as a client, and over the helper's socket as root."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.bench.floor import DATA
from tests.system.service import URL, run

HELPER = "/run/draupnir-helper.sock"
BENCH_IMAGE = 40_000_000  # far from any id that the metadata give

JSON = dict[str, Any]


def create(client: httpx.Client, image_id: int, **attributes: Any) -> JSON:
    """A new instance, as the API answers it."""
    body = {"data": {"attributes": {"image_id": image_id, **attributes}}}
    answer = client.post(f"{URL}/instances", json=body)
    assert answer.status_code == 201, answer.text
    data: JSON = answer.json()["data"]
    return data


def destroy(client: httpx.Client, instance: JSON) -> None:
    """The instance is gone."""
    assert client.delete(f"{URL}/instances/{instance['id']}").status_code == 204


@contextmanager
def credentials(instance: JSON, database: str = "my_db") -> Iterator[str]:
    """A connection string for the instance, whose files last as long as the block."""
    attributes = instance["attributes"]
    found = attributes["credentials"]
    with tempfile.TemporaryDirectory() as directory:
        for name in ("ca_certificate", "client_certificate", "client_key"):
            path = Path(directory, name)
            path.touch(0o600)
            path.write_text(found[name])
        yield (
            f"host={attributes['hostname']} hostaddr=127.0.0.1 port={attributes['port']} user=draupnir"
            f" dbname={database} sslmode=verify-full sslrootcert={directory}/ca_certificate"
            f" sslcert={directory}/client_certificate sslkey={directory}/client_key"
        )


def ask(op: str, **values: Any) -> JSON:
    """One request to the helper, as root may make it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(HELPER)
        connection.sendall(json.dumps({"op": op, **values}).encode())
        connection.shutdown(socket.SHUT_WR)
        answer = json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert "reply" in answer, answer
    reply: JSON = answer["reply"]
    return reply


def extract(tarball: Path) -> float:
    """Seconds of the extract job on the tarball."""
    ask("create_upload", image_id=BENCH_IMAGE)
    upload = DATA / f"chroot/draupnir/image_uploads/{BENCH_IMAGE}/{tarball.name}"
    shutil.copyfile(tarball, upload)
    shutil.chown(upload, "upload", "upload")
    ask("seal_upload", image_id=BENCH_IMAGE)
    run("sync", "-f", DATA)
    began = time.perf_counter()
    job = ask("start_extract", image_id=BENCH_IMAGE)
    while job["state"] == "running":
        time.sleep(0.005)
        job = ask("inspect_job", kind="extract", image_id=BENCH_IMAGE)
    seconds = time.perf_counter() - began
    assert job["state"] == "succeeded", job
    ask("stop_jobs", image_id=BENCH_IMAGE)
    ask("destroy_image", image_id=BENCH_IMAGE)
    ask("empty_trash")
    return seconds


def untar(tarball: Path) -> float:
    """Seconds of tar x of the tarball into the same filesystem, from which it is read as well."""
    target = DATA / "floor-tar"
    run("btrfs", "subvolume", "create", target)
    (target / "data").mkdir()
    copy = target / tarball.name
    shutil.copyfile(tarball, copy)
    run("sync", "-f", DATA)
    began = time.perf_counter()
    run("tar", "-xf", copy, "-C", target / "data")
    seconds = time.perf_counter() - began
    run("btrfs", "subvolume", "delete", target)
    return seconds


def resident_mb(unit: str) -> float:
    """Resident megabytes of a unit's processes."""
    group = run("systemctl", "show", "-P", "ControlGroup", unit).stdout.strip()
    pids = Path(f"/sys/fs/cgroup{group}/cgroup.procs").read_text().split()
    return sum(resident_mb_of(int(pid)) for pid in pids)


def resident_mb_of(pid: int) -> float:
    """Resident megabytes of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def own_megabytes(subvolume: Path) -> float:
    """What simple quotas have charged to the subvolume: the bytes written to it since it was made."""
    shown = run("btrfs", "subvolume", "show", "--raw", subvolume).stdout
    return float(next(line.split()[-1] for line in shown.splitlines() if "Usage exclusive" in line)) / 1e6


def await_pool(size: int = 2, within_s: float = 60) -> None:
    """Until the pool is full and its Postgres are up."""
    deadline = time.monotonic() + within_s
    query = "SELECT count(*) FROM instances WHERE purpose = 'pool' AND status = 'running'"
    while metadata(query) != [str(size)] or any(
        unit["postgres"] != "active" for unit in ask("observe_instances")["instance_units"]
    ):
        assert time.monotonic() < deadline, "the pool did not fill"
        time.sleep(0.05)


def await_asleep(instance_id: int, within_s: float = 60) -> None:
    """Until the instance's Postgres has stopped."""
    deadline = time.monotonic() + within_s
    while any(
        unit["instance_id"] == instance_id and unit["postgres"] != "inactive"
        for unit in ask("observe_instances")["instance_units"]
    ):
        assert time.monotonic() < deadline, "it did not fall asleep"
        time.sleep(0.05)


def metadata(query: str) -> list[str]:
    """The answer of a query to the private metadata cluster."""
    connection = ["-h", "/run/draupnir-metadata", "-d", "draupnir"]
    return run("runuser", "-u", "draupnir", "--", "psql", "-XAtq", *connection, "-c", query, cwd="/").stdout.split()
