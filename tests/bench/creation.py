"""How long until a query is answered: from the pool, made to order, after sleep, many at once, and by other means."""

from __future__ import annotations

import concurrent.futures
import itertools
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.bench import floor, helper
from tests.bench.figures import Figure, in_turn
from tests.system.service import Service, run

# Another wish than the default, so that the pool does not serve it.
TO_ORDER = {"sleep_after": 1799}
AT_ONCE = 50
FLOOR = "snapshot + postgres + query"

numbers = itertools.count()


class Maker:
    """Creates, asks, destroys, and notes the seconds of each."""

    def __init__(self, service: Service, image_id: int) -> None:
        self.client = httpx.Client(
            headers={"Authorization": f"Bearer {service.token}"},
            timeout=120,
            limits=httpx.Limits(max_connections=AT_ONCE),
        )
        self.image_id = image_id
        self.answers: list[float] = []
        self.destructions: list[float] = []

    def once(self, **attributes: Any) -> float:
        """Request to first query answered."""
        began = time.perf_counter()
        instance = helper.create(self.client, self.image_id, **attributes)
        self.answers.append(time.perf_counter() - began)
        with helper.credentials(instance) as connection_string:
            floor.first_answer(connection_string)
            seconds = time.perf_counter() - began
        began = time.perf_counter()
        helper.destroy(self.client, instance)
        self.destructions.append(time.perf_counter() - began)
        return seconds

    def from_pool(self) -> float:
        """The same, when the pool is full and awake."""
        helper.await_pool()
        return self.once()

    def wake(self, instance: helper.JSON) -> float:
        """Connection to first answer of an instance that is asleep."""
        helper.await_asleep(instance["id"])
        with helper.credentials(instance) as connection_string:
            began = time.perf_counter()
            floor.first_answer(connection_string)
            return time.perf_counter() - began


def measure(service: Service, image_id: int, times: int) -> list[Figure]:
    """The lines of the table that are about time to the first answer."""
    image = floor.DATA / "image_snapshots" / str(image_id)
    pooled, ordered = Maker(service, image_id), Maker(service, image_id)
    hit, cold, bare, reflink = in_turn(
        times,
        pooled.from_pool,
        lambda: ordered.once(**TO_ORDER),
        lambda: floor.create(image, next(numbers)),
        lambda: floor.create(image, next(numbers), copy=True),
    )
    sleeper = helper.create(ordered.client, image_id, sleep_after=1)
    woken, started = in_turn(times, lambda: ordered.wake(sleeper), lambda: floor.start(image, next(numbers)))
    helper.destroy(ordered.client, sleeper)
    together, alone = at_once(ordered, 3)
    template = floor.create_database(image, 3)
    return [
        Figure("create, pool hit: request to answer", "s", pooled.answers, bare, FLOOR, bound=0.3),
        Figure("create, pool hit: request to first query answered", "s", hit, bare, FLOOR, bound=1.0),
        Figure("create, to order: request to answer", "s", ordered.answers[:times], bare, FLOOR),
        Figure("create, to order: request to first query answered", "s", cold, bare, FLOOR, bound=2.0),
        Figure("create, to order: the same", "s", cold, reflink, "cp --reflink + postgres + query", bound=1.0),
        Figure("create, to order: the same", "s", cold, template, "CREATE DATABASE … TEMPLATE", bound=1.0),
        Figure("wake: connection to first query answered", "s", woken, started, "postgres + query", bound=2.0),
        Figure(
            f"create {AT_ONCE} at once: until all have answered", "s", together, alone, f"one x {AT_ONCE}", bound=0.6
        ),
        Figure("destroy: request to answer", "s", ordered.destructions[:times], bound=0.1),
    ]


def at_once(maker: Maker, times: int) -> tuple[list[float], list[float]]:
    """Seconds of fifty together, and of one, fifty times."""
    together, alone = [], []
    for _ in range(times):
        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
            made = list(threads.map(lambda _: helper.create(maker.client, maker.image_id, **TO_ORDER), range(AT_ONCE)))
            list(threads.map(_ask, made))
        together.append(time.perf_counter() - began)
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda one: helper.destroy(maker.client, one), made))
        alone.append(maker.once(**TO_ORDER) * AT_ONCE)
    return together, alone


def _ask(instance: helper.JSON) -> None:
    with helper.credentials(instance) as connection_string:
        floor.first_answer(connection_string)


def throughput(service: Service, image_id: int, times: int) -> list[Figure]:
    """pgbench -S through the port, beside a bare Postgres on the same filesystem; told, not bounded."""
    maker = Maker(service, image_id)
    image = floor.DATA / "image_snapshots" / str(image_id)
    instance = helper.create(maker.client, image_id, sleep_after=0)
    target = floor.DATA / "floor-pgbench"
    floor.snapshot(image, target)
    with helper.credentials(instance) as ours, floor.server(target) as bare:
        through, direct = in_turn(times, lambda: _pgbench(ours), lambda: _pgbench(bare))
    floor.forget(target)
    helper.destroy(maker.client, instance)
    return [Figure("pgbench -S, 8 clients, through the port", "tps", through, direct, "bare postgres")]


def _pgbench(connection_string: str) -> float:
    with psycopg.connect(connection_string) as connection:
        connection.execute("SELECT 1")
    done = run("pgbench", "-S", "-n", "-c", "8", "-j", "2", "-T", "5", connection_string)
    line = next(line for line in done.stdout.splitlines() if line.startswith("tps = "))
    return float(line.split()[2])


def sleepers(service: Service, image_id: int, count: int) -> list[Figure]:
    """What one sleeping instance costs daemon, helper and PID 1; and the disk of a fresh one."""
    maker = Maker(service, image_id)
    units = ("draupnir.service", "draupnir-helper.service")
    before = sum(map(helper.resident_mb, units)) + helper.resident_mb_of(1)
    made = [helper.create(maker.client, image_id, sleep_after=1) for _ in range(count)]
    for instance in made:
        helper.await_asleep(instance["id"])
    after = sum(map(helper.resident_mb, units)) + helper.resident_mb_of(1)
    disk = [helper.own_megabytes(Path(floor.DATA / "instances" / str(instance["id"]))) for instance in made]
    for instance in made:
        helper.destroy(maker.client, instance)
    return [
        Figure(f"memory of one sleeping instance (of {count})", "kB", [(after - before) * 1000 / count], bound=100),
        Figure("disk of an instance that was booted once", "MB", disk, bound=2),
    ]
