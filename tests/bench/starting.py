"""The parts of a start of Postgres: the effect of each chosen setting, and of each line of its sandbox."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench import floor, helper
from tests.bench.creation import TO_ORDER, Maker
from tests.bench.figures import Figure, in_turn
from tests.system.service import Service, run

# Our settings, except these.
SETTINGS = (
    ("shared_buffers=16MB",),
    ("shared_buffers=1GB",),
    ("huge_pages=try",),
    ("wal_init_zero=on", "wal_recycle=on", "max_wal_size=1GB"),
    ("autovacuum=off",),
    ("track_counts=off", "autovacuum=off"),
)

DROP_IN = "draupnir-instance-.service.d/10-sandbox.conf"
SANDBOX = Path("/usr/lib/systemd/system", DROP_IN)
CHANGED = Path("/run/systemd/system", DROP_IN)
# Postgres does not start without the other lines, which create its root directory and its loopback.
LINES = (
    "RestrictAddressFamilies", "PrivatePIDs", "PrivateIPC", "PrivateUsers", "ProtectHostname",
    "ProtectClock", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "NoNewPrivileges",
    "CapabilityBoundingSet", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality",
    "MemoryDenyWriteExecute", "KeyringMode", "RemoveIPC", "DevicePolicy", "SystemCallArchitectures", "SystemCallFilter",
)  # fmt: skip


def measure(service: Service, image_id: int, times: int) -> list[Figure]:
    """Bare Postgres by setting, then the instance's unit by line."""
    return [*by_setting(image_id, times), *by_line(service, image_id, times)]


def by_setting(image_id: int, times: int) -> list[Figure]:
    """Seconds from the start of bare Postgres to its first answer; the last line is after a crash."""
    target = floor.DATA / "floor-starting"
    floor.snapshot(floor.image(image_id), target)
    figures = []
    for settings in SETTINGS:
        ours, beside = in_turn(times, partial(_answer, target, *settings), partial(_answer, target))
        figures.append(Figure(f"postgres + query, with {' '.join(settings)}", "s", ours, beside, "with our settings"))
    ours, beside = in_turn(times, partial(_answer, target, crashed=True), partial(_answer, target))
    figures.append(Figure("postgres + query, after a crash", "s", ours, beside, "with our settings"))
    floor.forget(target)
    return figures


def _answer(data: Path, *settings: str, crashed: bool = False) -> float:
    if not crashed:
        with floor.server(data) as connection_string:
            floor.first_answer(connection_string)
            floor.stop(data)
    began = time.perf_counter()
    with floor.server(data, *settings) as connection_string:
        floor.first_answer(connection_string)
        return time.perf_counter() - began


def by_line(service: Service, image_id: int, times: int) -> list[Figure]:
    """Processor time, in seconds, of the unit from its start until it is ready, without one line and with all."""
    maker = Maker(service, image_id)
    instance = helper.create(maker.client, image_id, **TO_ORDER)
    figures = []
    with _unit(instance["id"]) as unit:
        for line in LINES:
            without, whole = in_turn(times, partial(_processor_s, unit, line), partial(_processor_s, unit))
            figures.append(Figure(f"the instance's unit, without {line}=", "s", without, whole, "with it"))
    helper.destroy(maker.client, instance)
    return figures


@contextmanager
def _unit(instance_id: int) -> Iterator[str]:
    """Provide the unit of an instance whose port is closed, so that only the block starts and stops it."""
    unit = f"draupnir-instance-{instance_id}.service"
    run("systemctl", "stop", f"draupnir-port-{instance_id}.socket", f"draupnir-port-{instance_id}.service", unit)
    CHANGED.parent.mkdir(parents=True)
    try:
        yield unit
    finally:
        CHANGED.unlink(missing_ok=True)
        CHANGED.parent.rmdir()
        run("systemctl", "daemon-reload")


def _processor_s(unit: str, without: str = "") -> float:
    run("systemctl", "stop", unit)
    lines = SANDBOX.read_text().splitlines()
    kept = [line for line in lines if not line.startswith((f"{without}=" if without else "#", "StopWhenUnneeded="))]
    CHANGED.write_text("\n".join(kept) + "\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "start", unit)
    return int(run("systemctl", "show", "-P", "CPUUsageNSec", unit).stdout) / 1e9
