"""A copy of the same data without Draupnir, compared with a cold start."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psycopg

from tests.bench import floor, helper
from tests.bench.creation import Maker, numbers
from tests.bench.figures import Figure, in_turn
from tests.system.backups import BINARIES
from tests.system.service import Service, run

NAME = "create, cold start: to first query answered"


def measure(service: Service, image_id: int, times: int) -> list[Figure]:
    """Compare; Draupnir has to be faster."""
    image = floor.image(image_id)
    ours, reflink = in_turn(
        times,
        Maker(service, image_id).to_order,
        lambda: floor.create(image, next(numbers), copy=True),
        before=helper.await_pool,
    )
    template, restored = _in_a_running_server(image, times)
    return [
        Figure(NAME, "s", ours, reflink, "cp --reflink + postgres + query", bound=1.0),
        Figure(NAME, "s", ours, template, "CREATE DATABASE … TEMPLATE + query", bound=1.0),
        Figure(NAME, "s", ours, restored, "pg_restore -j2 + query", bound=1.0),
    ]


def _in_a_running_server(image: Path, times: int) -> tuple[list[float], list[float]]:
    """Seconds of CREATE DATABASE … TEMPLATE, and of pg_restore -j2 of the same data, to the first answer."""
    target, dump = floor.DATA / "floor-template", floor.DATA / "floor-dump"
    floor.snapshot(image, target)
    floor.unlock(target)
    with floor.server(target) as connection_string:
        floor.first_answer(connection_string)
        run(BINARIES / "pg_dump", "-Fd", "-j2", "-f", dump, floor.as_superuser(connection_string))
        with psycopg.connect(floor.as_superuser(connection_string, "postgres"), autocommit=True) as connection:

            def template() -> float:
                began = time.perf_counter()
                connection.execute("CREATE DATABASE copy TEMPLATE my_db")
                return answered(began)

            def restore() -> float:
                began = time.perf_counter()
                connection.execute("CREATE DATABASE copy")
                run(BINARIES / "pg_restore", "-j2", "-d", floor.as_superuser(connection_string, "copy"), dump)
                return answered(began)

            def answered(began: float) -> float:
                floor.first_answer(floor.as_superuser(connection_string, "copy"))
                seconds = time.perf_counter() - began
                connection.execute("DROP DATABASE copy")
                connection.execute("CHECKPOINT")
                return seconds

            templates, restores = in_turn(times, template, restore)
    floor.forget(target)
    shutil.rmtree(dump)
    return templates, restores
