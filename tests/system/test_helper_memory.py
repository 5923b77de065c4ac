"""No request to the helper leaks memory, including those about missing images and instances."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from draupnir_helper.wire import PROTOCOL
from tests.system.faults import HELPER, main_pid
from tests.system.service import Service

NOBODYS = 60_000_000
THEN = "2026-01-02T03:04:05Z"
INSTANCE = {"instance_id": NOBODYS, "image_id": NOBODYS, "owner": "nobody", "port": 7000, "created_at": THEN}
# Requests that query or change units in systemd.
REQUESTS: dict[str, dict[str, object]] = {
    "inspect": {},
    "take_inventory": {},
    "observe_instances": {},
    "observe_addresses": {},
    "start_finalise": {
        "image_id": NOBODYS,
        "postgres_major": 17,
        "anonymisation_script": "",
        "carried_over": {},
        "given": {},
        "canaries": [],
        "keep_residue": False,
    },  # fmt: skip
    "inspect_job": {"image_id": NOBODYS, "kind": "finalise"},
    "stop_jobs": {"image_id": NOBODYS},
    "destroy_image": {"image_id": NOBODYS},
    "assign_instance": INSTANCE,
    "admit_addresses": {"instance_id": NOBODYS, "addresses": None},
    "close_instance": {"instance_id": NOBODYS},
    "destroy_instance": {"instance_id": NOBODYS},
}


def ask(op: str, **attributes: object) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("/run/draupnir-helper.sock")
        connection.sendall(json.dumps({"protocol": PROTOCOL, "op": op, **attributes}).encode())
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def resident_kilobytes() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{main_pid(HELPER)}/status").read_text())
    assert found
    return int(found[1])


@pytest.mark.parametrize("op", REQUESTS)
def test_hundreds_of_requests_leak_no_memory(service: Service, op: str) -> None:
    def ask_often() -> int:
        for _ in range(300):
            ask(op, **REQUESTS[op])
        return resident_kilobytes()

    # A leak is about 15 kB.
    first = ask_often()
    assert ask_often() - first < 1024
    ask("destroy_instance", instance_id=NOBODYS)  # what assign_instance wrote down
