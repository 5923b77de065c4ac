"""The API as a public service: the effect of slow clients on others."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import httpx

from tests.bench.figures import Figure
from tests.system.faults import await_healthy, await_that
from tests.system.https import https
from tests.system.service import URL, Service
from tests.system.slow_clients import slow_clients


def measure(service: Service, directory: Path, requests: int = 1000) -> Figure:
    """Return the slowest percent of health checks during 500 slow clients, each on a separate connection."""
    folder = directory / "live"
    folder.mkdir()
    with https(folder):
        await_healthy(service)
        with slow_clients_elsewhere(500):
            took_s = [health_check() for _ in range(requests)]
    slowest_hundredth_s = statistics.quantiles(took_s, n=100)[98]
    await_healthy(service)
    return Figure("health check beside 500 slow clients, p99", "s", [slowest_hundredth_s], bound=0.2)


def health_check() -> float:
    """Seconds of one, connecting included."""
    began = time.perf_counter()
    answer = httpx.get(f"{URL}/health_check", timeout=60)
    seconds = time.perf_counter() - began
    assert answer.status_code == 200, answer.text
    return seconds


@contextmanager
def slow_clients_elsewhere(count: int) -> Iterator[None]:
    """Run `count` of them during the block, in a separate process, so that they do not slow down the measurement."""
    connected, over = multiprocessing.Event(), multiprocessing.Event()
    process = multiprocessing.Process(target=_hold_on, args=(count, connected, over))
    process.start()
    try:
        assert connected.wait(60)
        yield
    finally:
        over.set()
        process.join()
    assert process.exitcode == 0


def _hold_on(count: int, connected: Event, over: Event) -> None:
    with slow_clients(count) as (_, connections):
        await_that(lambda: sum(connections.values()) >= count, "all are connected")
        connected.set()
        over.wait()
