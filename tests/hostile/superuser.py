"""Makes an instance's user a superuser, as after an escalation; root does this from outside."""

from __future__ import annotations

from tests.system import world
from tests.system.backups import BINARIES
from tests.system.faults import await_that
from tests.system.service import Service, run


def become_superuser(service: Service, instance_id: int) -> None:
    """Run single-user mode on the stopped instance's data, with its identity, then wake it."""
    server = f"draupnir-instance-{instance_id}.service"
    # Units that are still starting cannot be stopped, including the proxy.
    service.answer(instance_id, "SELECT 1", "postgres")
    run("systemctl", "stop", server)
    await_that(lambda: run("systemctl", "is-active", server, ok=False).stdout != "active\n", f"{server} is down")
    data = world.DATA / f"instances/{instance_id}"
    uid = data.stat().st_uid
    configuration = f"/run/draupnir/instances/{instance_id}/postgresql.conf"
    identity = [f"--reuid={uid}", f"--regid={uid}", "--groups=draupnir-data", "--no-new-privs"]
    options = ["-D", str(data), "-c", f"config_file={configuration}", "template1"]
    # These settings have paths that exist only in the sandbox.
    files = ["-c", "ssl=off"]
    run(
        "setpriv", *identity, BINARIES / "postgres", "--single", *files, *options, cwd="/",
        input="ALTER ROLE draupnir SUPERUSER\n",
    )  # fmt: skip
    assert service.answer(instance_id, "SHOW is_superuser", "postgres") == "on"
