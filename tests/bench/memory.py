"""Memory usage: of one idle instance, and of daemon and helper after a hundred instances were created and destroyed."""

from __future__ import annotations

import psycopg

from tests.bench import floor, helper
from tests.bench.creation import TO_ORDER, Maker
from tests.bench.figures import Figure
from tests.bench.growth import UNITS
from tests.system.faults import await_healthy
from tests.system.service import Service, credentials, run

INSTANCES = 100


def measure(service: Service, image_id: int, times: int) -> list[Figure]:
    """PSS beside a bare Postgres that runs at the same time; resident memory of what always runs."""
    ours, bare = [], []
    for _ in range(times):
        one, other = _idle(Maker(service, image_id))
        ours.append(one)
        bare.append(other)
    return [
        Figure("memory of an idle instance, proxy included (PSS)", "MB", ours, bare, "bare postgres", bound=1.2),
        held(service, image_id),
    ]


def held(service: Service, image_id: int) -> Figure:
    """Measure daemon and helper after a hundred instances were created and destroyed, from a fresh start."""
    run("systemctl", "restart", *UNITS)
    await_healthy(service)
    for _ in range(INSTANCES):
        service.destroy_instance(service.create_instance(image_id)["id"])
    resident = sum(map(helper.resident_mb, UNITS))
    return Figure(f"daemon and helper after {INSTANCES} instances", "MB", [resident], bound=200)


def _idle(maker: Maker) -> tuple[float, float]:
    """Megabytes of an instance and of a bare Postgres, each having answered one query."""
    instance = helper.create(maker.client, maker.image_id, **TO_ORDER)
    target = floor.DATA / "floor-idle"
    floor.snapshot(floor.image(maker.image_id), target)
    with credentials(instance) as ours, floor.server(target) as bare:
        for connection_string in (ours, bare):
            floor.first_answer(connection_string)
            with psycopg.connect(connection_string) as connection:
                connection.execute("SELECT count(*) FROM pg_class")
        number = instance["id"]
        pids = helper.processes(f"draupnir-instance-{number}.service") + helper.processes(
            f"draupnir-port-{number}.service"
        )
        found = helper.proportional_mb(pids), helper.proportional_mb(floor.processes(target))
    floor.forget(target)
    helper.destroy(maker.client, instance)
    return found
