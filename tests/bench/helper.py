"""Requests of the benchmarks to the service: over HTTP as a client, and over the helper's socket as root."""

from __future__ import annotations

import concurrent.futures
import json
import socket
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx

from draupnir_helper.wire import PROTOCOL
from tests.bench.floor import first_answer
from tests.system.service import URL, credentials, run

HELPER = "/run/draupnir-helper.sock"

JSON = dict[str, Any]


def create(client: httpx.Client, image_id: int, **attributes: Any) -> JSON:
    """Return a new instance, as the API answers it."""
    body = {"data": {"attributes": {"image_id": image_id, **attributes}}}
    answer = client.post(f"{URL}/instances", json=body)
    assert answer.status_code == 201, answer.text
    data: JSON = answer.json()["data"]
    return data


def destroy_all(client: httpx.Client, instances: Collection[JSON]) -> None:
    """Destroy all of them, and wait until the trash is empty."""
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda each: destroy(client, each), instances))
    while ask("empty_trash")["left"]:
        time.sleep(0.05)


def ask_first(instance: JSON) -> None:
    """Wait until the instance has answered a query."""
    with credentials(instance) as connection_string:
        first_answer(connection_string)


def destroy(client: httpx.Client, instance: JSON) -> None:
    """Destroy the instance."""
    assert client.delete(f"{URL}/instances/{instance['id']}").status_code == 204


def ask(op: str, **values: Any) -> JSON:
    """Send a request to the helper as root."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(HELPER)
        connection.sendall(json.dumps({"protocol": PROTOCOL, "op": op, **values}).encode())
        connection.shutdown(socket.SHUT_WR)
        answer = json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert "reply" in answer, answer
    reply: JSON = answer["reply"]
    return reply


def processes(unit: str) -> list[int]:
    """Return the processes of a unit."""
    group = run("systemctl", "show", "-P", "ControlGroup", unit).stdout.strip()
    return [int(pid) for pid in Path(f"/sys/fs/cgroup{group}/cgroup.procs").read_text().split()]


def resident_mb(unit: str) -> float:
    """Resident megabytes of a unit's processes."""
    return sum(map(resident_mb_of, processes(unit)))


def resident_mb_of(pid: int) -> float:
    """Resident megabytes of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def proportional_mb(pids: list[int]) -> float:
    """Megabytes of the processes, in which a page that so many share counts to each by its part (PSS)."""
    rollups = "\n".join(Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    return sum(int(line.split()[1]) for line in rollups.splitlines() if line.startswith("Pss:")) * 1024 / 1e6


def apparent_gb(directory: Path) -> float:
    """Gigabytes of the files below the directory, however little of them is on the disk."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e9


def own_megabytes(subvolume: Path) -> float:
    """Return the usage of the subvolume in simple quotas: the bytes written since its creation."""
    shown = run("btrfs", "subvolume", "show", "--raw", subvolume).stdout
    return float(next(line.split()[-1] for line in shown.splitlines() if "Usage exclusive" in line)) / 1e6


def await_pool(size: int = 2, within_s: float = 60) -> None:
    """Wait until the pool of the newest image is full and its Postgres servers run."""
    deadline = time.monotonic() + within_s
    query = (
        "SELECT id FROM instances WHERE purpose = 'pool' AND status = 'running' AND image_id ="
        " (SELECT id FROM images WHERE status = 'ready' ORDER BY backed_up_at DESC, id DESC LIMIT 1)"
    )
    while len(pooled := metadata(query)) != size or (
        set(pooled) - {str(unit["instance_id"]) for unit in _units() if unit["postgres"] == "active"}
    ):
        assert time.monotonic() < deadline, "the pool did not fill"
        time.sleep(0.05)


def await_asleep(instance_ids: Collection[int], within_s: float = 60) -> None:
    """Wait until the Postgres of each has stopped."""
    deadline = time.monotonic() + within_s
    while any(unit["instance_id"] in instance_ids and unit["postgres"] != "inactive" for unit in _units()):
        assert time.monotonic() < deadline, "they did not fall asleep"
        time.sleep(0.05)


def metadata(query: str) -> list[str]:
    """Return the answer of a query to the private metadata cluster."""
    connection = ["-h", "/run/draupnir-metadata", "-d", "draupnir"]
    return run("runuser", "-u", "draupnir", "--", "psql", "-XAtq", *connection, "-c", query, cwd="/").stdout.split()


def _units() -> list[JSON]:
    units: list[JSON] = ask("observe_instances")["instance_units"]
    return units
