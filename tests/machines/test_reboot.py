"""After a reboot or a power failure, every instance has its port and data again; run from outside."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
MACHINE = PROJECT / "packaging/machine"
NAME = f"reboot-{os.getpid()}"

# The scripts that prepare and inspect the machine; both run inside, as root.
PREPARE = """
set -euo pipefail
cd /root
export DRAUPNIR_TOKEN=$(cat /etc/draupnir/shared_secret)
runuser -u postgres -- createdb my_db
runuser -u postgres -- psql -q my_db -c 'CREATE TABLE t (kind text)'
install -d -o postgres /srv/backup
runuser -u postgres -- pg_basebackup -c fast -Ft -D /srv/backup/base
ssh-keygen -q -t ed25519 -N '' -f key.pem
draupnir upload-key add key.pem.pub
echo 'SELECT 1;' >script.sql
draupnir-client images create now script.sql
scp -q -o StrictHostKeyChecking=no -i key.pem /srv/backup/base/* upload@localhost:/draupnir/image_uploads/1
draupnir-client images finalise 1
sed -i '1i direct_instances = true' /etc/draupnir/config.toml
systemctl restart draupnir-helper draupnir
make() {
    id=$(draupnir-client --output json instances create 1 "${@:2}" | jq --raw-output .id)
    eval $(draupnir-client env $id)
    psql -q my_db -c "INSERT INTO t VALUES ('$1')"
}
make ordinary
make sleeper --sleep-after 1s
make direct --network direct
"""
LOOK = """
export DRAUPNIR_TOKEN=$(cat /etc/draupnir/shared_secret)
draupnir-client --output json instances list | jq -r '.[] | [.id, .attributes.port] | @tsv'
for n in $(draupnir-client --output json instances list | jq -r '.[].id'); do
    eval $(draupnir-client env $n)
    kind=$(PGCONNECT_TIMEOUT=10 psql -XAtq my_db -c 'SELECT kind FROM t')
    echo "$n: $kind, direct: $(systemctl is-active draupnir-instance-direct-$n)"
done
"""
SLEEP = """
export DRAUPNIR_TOKEN=$(cat /etc/draupnir/shared_secret)
asleep='.[] | select(.attributes.sleep_after == 1) | .attributes.status == "asleep"'
for _ in $(seq 100); do
    draupnir-client --output json instances list | jq --exit-status "$asleep" && exit
    sleep 0.1
done
exit 1
"""


def machine(*arguments: str | Path, ok: bool = True) -> str:
    done = subprocess.run([MACHINE, *arguments], capture_output=True, text=True, timeout=600, check=False)
    assert not ok or done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def inside(script: str, *, ok: bool = True) -> str:
    return machine("exec", NAME, "--", "bash", "-c", script, ok=ok)


@pytest.fixture(scope="module", autouse=True)
def _machine() -> Iterator[None]:
    machine("start", NAME)
    try:
        inside(PREPARE)
        yield
    finally:
        machine("stop", NAME)


@pytest.mark.parametrize("options", [(), ("--hard",)], ids=["shut down", "plug pulled"])
def test_every_instance_is_back_on_its_port_with_its_data(options: tuple[str, ...]) -> None:
    before = inside(LOOK)
    found = set(re.findall(r": (.*)", before))
    assert found == {"ordinary, direct: inactive", "sleeper, direct: inactive", "direct, direct: active"}
    inside(SLEEP)
    if options:
        # With synchronous_commit = off the last commits may be lost, but these are older.
        inside("sync")
    machine("reboot", *options, NAME)
    deadline = time.monotonic() + 60
    while (after := inside(LOOK, ok=False)) != before:
        assert time.monotonic() < deadline, after
        time.sleep(1)
    inside(SLEEP)
    inside("draupnir doctor")
