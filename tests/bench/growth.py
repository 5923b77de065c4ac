"""Measures creation for larger images and more instances, and the cost of a sleeping instance."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import time

from tests.bench import floor, helper
from tests.bench.creation import Maker
from tests.bench.figures import Figure, in_turn
from tests.bench.sources import Images
from tests.system.service import URL, Service

AT_ONCE = 4
NAME = "create, cold start, to first query answered"
UNITS = ("draupnir.service", "draupnir-helper.service")


def sizes(service: Service, images: Images, times: int) -> list[Figure]:
    """Measure the same request for images of three sizes."""
    makers = [Maker(service, image_id) for image_id in (images.small, images.middle, images.large)]
    small, middle, large = in_turn(times, *(maker.to_order for maker in makers), before=helper.await_pool)
    sizes_gb = [helper.apparent_gb(floor.image(maker.image_id)) for maker in makers]
    beside = f"image of {sizes_gb[0]:.1f} GB"
    return [
        Figure(f"{NAME}: image of {sizes_gb[1]:.1f} GB", "s", middle, small, beside, bound=1.2),
        Figure(f"{NAME}: image of {sizes_gb[2]:.1f} GB", "s", large, small, beside, bound=1.2),
    ]


def living(service: Service, image_id: int, times: int, most: int) -> list[Figure]:
    """Measure the same request with no, a tenth, and the maximum of sleeping instances; and their cost."""
    maker = Maker(service, image_id)

    def series() -> list[float]:
        (found,) = in_turn(times, maker.to_order, before=helper.await_pool)
        return found

    alone = series()
    before_mb, files_before_mb = _held_mb(), _files_mb()
    sleepers: list[helper.JSON] = []
    figures = []
    for count in (most // 10, most):
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
            wanted = itertools.repeat(image_id, count - len(sleepers))
            sleepers += threads.map(lambda each: helper.create(maker.client, each, sleep_after=1), wanted)
        helper.await_asleep({each["id"] for each in sleepers}, within_s=300)
        figures.append(Figure(f"{NAME}: {count} asleep", "s", series(), alone, "none asleep", bound=1.5))
    grown_kb = (_held_mb() - before_mb) * 1000 / most
    files_kb = (_files_mb() - files_before_mb) * 1000 / most
    disk = [helper.own_megabytes(floor.DATA / "instances" / str(each["id"])) for each in sleepers[:100]]
    woken = [maker.wake(each) for each in sleepers[:: most // times][:times]]
    lists = [_list(maker) for _ in range(times)]
    helper.destroy_all(maker.client, sleepers)
    return [
        *figures,
        Figure(
            f"memory of one sleeping instance (of {most}), in daemon, helper and PID 1", "kB", [grown_kb], bound=100
        ),
        Figure(f"files of one sleeping instance (of {most}) in /run, which is memory", "kB", [files_kb]),
        Figure("disk of an instance that was booted once", "MB", disk, bound=2),
        Figure(f"wake: one of {most}", "s", woken),
        Figure(f"GET /instances: {most}", "s", lists),
    ]


def _held_mb() -> float:
    return sum(map(helper.resident_mb, UNITS)) + helper.resident_mb_of(1)


def _files_mb() -> float:
    found = os.statvfs("/run")
    return (found.f_blocks - found.f_bfree) * found.f_frsize / 1e6


def _list(maker: Maker) -> float:
    began = time.perf_counter()
    assert maker.client.get(f"{URL}/instances").status_code == 200
    return time.perf_counter() - began
