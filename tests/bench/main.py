"""The benchmarks of the main job; each builds its own data, and everything is destroyed at the end."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path

from tests.bench import creation, edge, helper
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
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:  # /tmp is memory
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
        *creation.measure(service, image_id, times),
        *creation.throughput(service, image_id, 3),
        *creation.sleepers(service, image_id, 50),
        extraction("plain tar", tarball, max(3, times // 3)),
        extraction("tar with gzip", source.tarball("backup.tar.gz", "-I", "gzip -1"), 3),
        memory(service, image_id),
        edge.measure(service, directory),
    ]
    service.destroy_image(image_id)
    return figures


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
