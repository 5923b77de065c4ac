"""Authority keys of instances are encrypted in the metadata, with a key that is required for new instances."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.faults import DAEMON, await_healthy
from tests.system.service import Service, run

KEY_FILE = Path("/etc/draupnir/refresh_token_key")


def test_a_dump_of_the_metadata_has_no_private_key(instance: int) -> None:
    dump = run("runuser", "-u", "draupnir", "--", "pg_dump", "-h", "/run/draupnir-metadata", "draupnir", cwd="/").stdout
    assert f"\n{instance}\t" in dump
    assert "PRIVATE KEY" not in dump


@pytest.fixture
def short_key(service: Service, instance: int) -> Iterator[int]:
    """Start the service with an invalid key and an older instance."""
    kept = KEY_FILE.read_bytes()
    try:
        KEY_FILE.write_bytes(b"short")
        run("systemctl", "restart", DAEMON)
        await_healthy(service)
        yield instance
    finally:
        KEY_FILE.write_bytes(kept)
        run("systemctl", "restart", DAEMON)
        await_healthy(service)


def test_without_the_key_no_instance_is_made_and_doctor_says_what_to_do(
    service: Service, image: int, short_key: int
) -> None:
    answer = service.ask("POST", "/instances", {"image_id": image})
    assert answer.status_code == 503
    (error,) = answer.json()["errors"]
    assert error["code"] == "encryption_key_missing"
    assert str(KEY_FILE) in error["detail"]
    done = run("draupnir", "doctor", ok=False)
    assert done.returncode == 1
    assert f"✗ encryption key: {KEY_FILE} has 5 bytes" in done.stdout
    listed = service.ask("GET", "/instances").json()["data"]
    assert [int(each["id"]) for each in listed] == [short_key]
