"""Measures the time until a query is answered: from the pool, as a cold start, after sleep, and many at once."""

from __future__ import annotations

import concurrent.futures
import itertools
import time
from typing import Any

import httpx

from tests.bench import caches, floor, helper
from tests.bench.figures import Figure, in_turn
from tests.system.service import Service, credentials

# A shape other than the default, so that the pool does not serve it.
TO_ORDER = {"sleep_after": 1799}
AT_ONCE = 50
FLOOR = "snapshot + postgres + query"

numbers = itertools.count()


class Maker:
    """Creates, queries and destroys instances, and records the seconds of each."""

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
        """Measure from the request to the first answer of a query."""
        began = time.perf_counter()
        instance = helper.create(self.client, self.image_id, **attributes)
        self.answers.append(time.perf_counter() - began)
        with credentials(instance) as connection_string:
            floor.first_answer(connection_string)
            seconds = time.perf_counter() - began
        began = time.perf_counter()
        helper.destroy(self.client, instance)
        self.destructions.append(time.perf_counter() - began)
        return seconds

    def to_order(self) -> float:
        """Measure the same for a cold start."""
        return self.once(**TO_ORDER)

    def wake(self, instance: helper.JSON) -> float:
        """Measure from the connection to the first answer of a sleeping instance."""
        with credentials(instance) as connection_string:
            began = time.perf_counter()
            floor.first_answer(connection_string)
            return time.perf_counter() - began


def measure(service: Service, image_id: int, times: int) -> list[Figure]:
    """Return the lines of the table about the time to the first answer, with warm caches."""
    image = floor.image(image_id)
    pooled, ordered = Maker(service, image_id), Maker(service, image_id)
    hit, cold, bare = in_turn(
        times, pooled.once, ordered.to_order, lambda: floor.create(image, next(numbers)), before=helper.await_pool
    )
    woken, started = wakes(ordered, times)
    together, alone = at_once(ordered, times)
    return [
        Figure("create, pool hit: request to answer", "s", pooled.answers, bare, FLOOR, bound=0.3),
        Figure("create, pool hit: request to first query answered", "s", hit, bare, FLOOR, bound=1.0),
        Figure("create, cold start: request to answer", "s", ordered.answers[:times], bare, FLOOR),
        Figure("create, cold start: request to first query answered", "s", cold, bare, FLOOR, bound=2.0),
        Figure("wake: connection to first query answered", "s", woken, started, "postgres + query", bound=2.0),
        Figure(
            f"create {AT_ONCE} at once: until all have answered", "s", together, alone, f"one x {AT_ONCE}", bound=0.6
        ),
        Figure("destroy: request to answer", "s", ordered.destructions[:times], bound=0.1),
    ]


def measure_cold(service: Service, image_id: int, times: int) -> list[Figure]:
    """Return the same with cold caches."""
    image = floor.image(image_id)
    pooled, ordered = Maker(service, image_id), Maker(service, image_id)

    def forget() -> None:
        helper.await_pool()
        caches.drop()

    hit, cold, bare = in_turn(
        times, pooled.once, ordered.to_order, lambda: floor.create(image, next(numbers)), before=forget
    )
    woken, started = wakes(ordered, times, cold=True)
    return [
        Figure("cold cache: create, pool hit, to first query answered", "s", hit, bare, FLOOR),
        Figure("cold cache: create, cold start, to first query answered", "s", cold, bare, FLOOR),
        Figure("cold cache: wake", "s", woken, started, "postgres + query"),
    ]


def wakes(maker: Maker, times: int, *, cold: bool = False) -> tuple[list[float], list[float]]:
    """Seconds of waking one that sleeps, and of starting Postgres by hand."""
    image = floor.image(maker.image_id)
    sleeper = helper.create(maker.client, maker.image_id, sleep_after=1)

    def prepare() -> None:
        helper.await_asleep({sleeper["id"]})
        if cold:
            caches.drop()

    woken, started = in_turn(
        times,
        lambda: maker.wake(sleeper),
        lambda: floor.start(image, next(numbers), ready=caches.drop if cold else None),
        before=prepare,
    )
    helper.destroy(maker.client, sleeper)
    return woken, started


def at_once(maker: Maker, times: int) -> tuple[list[float], list[float]]:
    """Seconds of fifty together, and of one, fifty times."""
    together, alone = [], []
    for _ in range(times):
        helper.await_pool()
        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
            made = list(threads.map(lambda _: helper.create(maker.client, maker.image_id, **TO_ORDER), range(AT_ONCE)))
            list(threads.map(helper.ask_first, made))
        together.append(time.perf_counter() - began)
        helper.destroy_all(maker.client, made)
        alone.append(maker.to_order() * AT_ONCE)
    return together, alone
