"""The benchmarks by subject; each creates what it measures, and everything is destroyed at the end."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import draupnir
from tests.bench import (
    creation,
    edge,
    finalising,
    growth,
    handing_over,
    memory,
    other_means,
    residues,
    sources,
    starting,
    throughput,
)
from tests.bench.figures import Figure, table
from tests.bench.sources import Images
from tests.system.backups import BINARIES
from tests.system.conftest import CONFIGURATION
from tests.system.faults import await_healthy
from tests.system.service import Service, run

GIGABYTE_SCALE = 62  # pgbench -i makes about 16 MB a scale
SLEEPERS = 1000


def main(arguments: list[str]) -> int:
    """Measure and print; exit with 1 if a bound was missed."""
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="how often each measure is taken")
    parser.add_argument("--scale", type=int, default=GIGABYTE_SCALE, help="pgbench scale of the image")
    parser.add_argument("--sleepers", type=int, default=SLEEPERS, help="how many sleep where many do")
    parser.add_argument("--commit", default=draupnir.__version__, help="what is measured, for the document")
    parser.add_argument("--only", action="append", choices=list(SUBJECTS), help="this subject; may be repeated")
    given = parser.parse_args(arguments)
    figures: list[Figure] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, prepared(Path(directory), given.scale) as world:
        for name in given.only or SUBJECTS:
            figures += SUBJECTS[name](*world, given)
            print(f"{name}: measured, {time.monotonic() - began:.0f} s since the start", file=sys.stderr, flush=True)
    print(table(figures), file=sys.stderr)
    document = {
        "commit": given.commit,
        "times": given.times,
        "seconds": round(time.monotonic() - began),
        "machine": machine(),
        "figures": [figure.document() for figure in figures],
    }
    print(json.dumps(document, indent=1, ensure_ascii=False))
    return 0 if all(figure.reached is not False for figure in figures) else 1


# Subject → what measures it, in the order of the table.
SUBJECTS: dict[str, Callable[[Service, Images, argparse.Namespace], list[Figure]]] = {
    "creation": lambda service, images, given: creation.measure(service, images.middle, given.times),
    "cold": lambda service, images, given: creation.measure_cold(service, images.middle, given.times),
    "starting": lambda service, images, given: starting.measure(service, images.middle, given.times),
    "other-means": lambda service, images, given: other_means.measure(service, images.middle, given.times),
    "sizes": lambda service, images, given: growth.sizes(service, images, given.times),
    "living": lambda service, images, given: growth.living(service, images.small, given.times, given.sleepers),
    "memory": lambda service, images, given: memory.measure(service, images.middle, given.times),
    "throughput": lambda service, images, given: throughput.measure(service, images.middle, given.times),
    "finalising": lambda service, images, given: finalising.measure(service, images, given.times),
    "residues": lambda service, images, given: residues.measure(service, images, given.times),
    "handing-over": lambda service, images, given: handing_over.measure(service, images.directory, given.times),
    "edge": lambda service, images, given: [edge.measure(service, images.directory)],
}


@contextmanager
def prepared(directory: Path, scale: int) -> Iterator[tuple[Service, Images]]:
    """Provide the service with direct instances and images for the measurements; restore everything at the end."""
    before = CONFIGURATION.read_text()
    key = directory / "key.pem"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", key)
    run("draupnir", "upload-key", "add", key.with_suffix(".pem.pub"))
    service = Service(key)
    others = _image_ids(service)
    try:
        CONFIGURATION.write_text("direct_instances = true\nallow_residue = true\n" + before)
        run("systemctl", "restart", "draupnir-helper", "draupnir")
        await_healthy(service)
        yield service, sources.make(service, directory, scale)
    finally:
        for image_id in _image_ids(service) - others:
            service.destroy_image(image_id)
        CONFIGURATION.write_text(before)
        run("draupnir", "upload-key", "remove", "bench")
        run("systemctl", "restart", "draupnir-helper", "draupnir")


def _image_ids(service: Service) -> set[int]:
    return {image["id"] for image in service.ask("GET", "/images").json()["data"]}


def machine() -> dict[str, Any]:
    """Describe the machine of the measurements."""
    return {
        "processors": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "systemd": run("systemctl", "--version").stdout.split()[1],
        "postgres": run(BINARIES / "postgres", "--version").stdout.split()[2],
    }
