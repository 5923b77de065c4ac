"""Native code of a superuser that ignores signals delays a restart and the end of an instance, and prevents neither."""

from __future__ import annotations

import subprocess

import pytest

from tests.system.faults import await_that, configured, processes
from tests.system.service import Service

# One function ignores all signals. The other one also stops the other processes of the instance, again and again.
DEAF = """
CREATE FUNCTION deaf() RETURNS void LANGUAGE plpython3u AS $$
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
while True:
    pass
$$;
CREATE FUNCTION stopping() RETURNS void LANGUAGE plpython3u AS $$
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
while True:
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            try:
                os.kill(int(name), signal.SIGSTOP)
            except ProcessLookupError:
                pass
$$;
"""


@pytest.mark.parametrize("function", ["deaf", "stopping"])
def test_an_instance_whose_code_ignores_signals_is_restarted_and_destroyed(
    service: Service, image: int, function: str
) -> None:
    with configured(service, "allow_superuser = true\n"):
        answer = service.ask("POST", "/instances", {"image_id": image, "superuser": True})
        instance_id = int(answer.json()["data"]["id"])
        unit = f"draupnir-instance-{instance_id}.service"
        service.psql(instance_id, f"CREATE EXTENSION plpython3u; {DEAF}")
        environment = {**service.environment(instance_id), "PGDATABASE": "my_db"}
        before = set(processes(unit))
        command = ["psql", "-XAtqc", f"SELECT {function}()"]
        session = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        await_that(lambda: set(processes(unit)) - before, "the code runs")
        service.client("instances", "restart", str(instance_id))
        assert service.answer(instance_id, "SHOW is_superuser") == "on"
        session.communicate(timeout=300)
        service.destroy_instance(instance_id)
