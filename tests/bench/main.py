"""The benchmarks of the main job; each builds its own data, and everything is destroyed at the end."""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.bench import floor, helper
from tests.bench.figures import Figure, in_turn, table
from tests.system.backups import Source
from tests.system.service import ANONYMISE, Service, run

GIGABYTE_SCALE = 62  # pgbench -i makes about 16 MB a scale


def main(arguments: list[str]) -> int:
    """Measure, print, and say by the exit code whether every bound was reached."""
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="how often each measure is taken")
    parser.add_argument("--scale", type=int, default=GIGABYTE_SCALE, help="pgbench scale of the image")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        figures = measure(Path(directory), given.times, given.scale)
    print(table(figures), file=sys.stderr)
    document = {"machine": platform.uname()._asdict(), "figures": [figure.document() for figure in figures]}
    print(json.dumps(document, indent=1))
    return 0


def measure(directory: Path, times: int, scale: int) -> list[Figure]:
    source = Source(directory / "production")
    source.start()
    source.pgbench(scale)
    source.stop()
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", directory / "key.pem")
    run("draupnir", "upload-key", "add", directory / "key.pem.pub")
    service = Service(directory / "key.pem")
    tarball = source.tarball("backup.tar")
    image_id = service.make_image(tarball, ANONYMISE)
    figures = [
        *creation(service, image_id, times),
        extraction("plain tar", tarball, max(3, times // 3)),
        extraction("tar with gzip", source.tarball("backup.tar.gz", "-I", "gzip -1"), 3),
        memory(service, image_id),
    ]
    service.destroy_image(image_id)
    return figures


def creation(service: Service, image_id: int, times: int) -> list[Figure]:
    """Request to first query answered, beside a bare snapshot and a bare Postgres."""
    image = floor.DATA / "image_snapshots" / str(image_id)
    numbers = itertools.count()
    answers: list[float] = []
    with httpx.Client(headers={"Authorization": f"Bearer {service.token}"}, timeout=60) as client:

        def ours() -> float:
            began = time.perf_counter()
            instance = helper.create(client, image_id)
            answers.append(time.perf_counter() - began)
            with helper.credentials(instance) as connection_string:
                floor.first_answer(connection_string)
                seconds = time.perf_counter() - began
            helper.destroy(client, instance)
            return seconds

        first, bare = in_turn(times, ours, lambda: floor.create(image, next(numbers)))
    return [
        Figure("create: request to first query answered", "s", first, bare, "snapshot + postgres + query", bound=3),
        Figure("create: request to answer", "s", answers, bare, "the same"),
    ]


def extraction(name: str, tarball: Path, times: int) -> Figure:
    """The extract job, beside GNU tar into the same filesystem."""
    ours, bare = in_turn(times, lambda: helper.extract(tarball), lambda: helper.untar(tarball))
    return Figure(f"extract a {name} of {tarball.stat().st_size / 1e6:.0f} MB", "s", ours, bare, "tar x", bound=1.3)


def memory(service: Service, image_id: int) -> Figure:
    """What daemon and helper hold after a hundred instances."""
    for _ in range(100):
        service.destroy_instance(service.create_instance(image_id)["id"])
    resident = sum(helper.resident_mb(unit) for unit in ("draupnir.service", "draupnir-helper.service"))
    return Figure("daemon and helper after 100 instances", "MB", [resident], bound=200)
