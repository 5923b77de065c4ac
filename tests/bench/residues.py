"""Measures the rewriting and the proof beside neither of them, the search alone, and the size of an image."""

from __future__ import annotations

import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

from draupnir_helper.jobs import searches
from tests.bench import floor
from tests.bench.figures import Figure, in_turn
from tests.bench.finalising import finalise
from tests.bench.sources import Images
from tests.system.backups import BINARIES
from tests.system.service import Service, run

NEEDLES = 2000
SEARCH_BYTES_PER_S = 500e6
# The table people has a tenth of the bytes.
TENTH = "\\c my_db\nUPDATE people SET email = 'user' || id, note = '';"
NOTHING = "SELECT 1;"


def measure(service: Service, images: Images, times: int) -> list[Figure]:
    """Measure all of them on the same backup."""
    figures = []
    for title, script, bound in (("changes a tenth", TENTH, 1.6), ("changes nothing", NOTHING, 1.1)):
        measured = partial(finalise, service, images.tarball, script)
        ours, beside = in_turn(times, measured, partial(measured, keep_residue=True))
        name = f"finalise {images.tarball.stat().st_size / 1e6:.0f} MB, the script {title}"
        figures.append(Figure(name, "s", ours, beside, "the same with --keep-residue", bound=bound))
    image = floor.image(images.middle)
    size_bytes = _size_bytes(image)
    name = f"search {size_bytes / 1e6:.0f} MB for {NEEDLES} values"
    (seconds,) = in_turn(times, lambda: search(image))
    figures.append(Figure(name, "s", seconds, bound=size_bytes / SEARCH_BYTES_PER_S))
    sizes = [size_bytes / 1e6], [_restored_bytes(image) / 1e6]
    figures.append(Figure("size of an image without its log", "MB", *sizes, "initdb + pg_restore", 1.05))
    return figures


def search(image: Path) -> float:
    """Seconds of a search for values of different lengths and kinds."""
    values = [
        part.encode()
        for number in range(NEEDLES // 4)
        for part in (
            f"nobody-{number}@corp.example.org",
            f"+49 30 {number:08}",
            f"{number:05} Any Street, Nowhere",
            f"{number * 7919:x}-{number * 104729:x}-token",
        )
    ]
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        assert searches.search(image, Path(directory), values) == []
        return time.perf_counter() - began


def _size_bytes(data: Path) -> int:
    files = (path for path in data.rglob("*") if path.is_file() and "pg_wal" not in path.parts)
    return sum(path.stat().st_size for path in files)


def _restored_bytes(image: Path) -> int:
    """Return the size of a new cluster with a restored dump of the image."""
    target, dump, fresh = floor.DATA / "floor-dumped", floor.DATA / "floor-dump", floor.DATA / "floor-fresh"
    floor.snapshot(image, target)
    with floor.server(target) as connection_string:
        floor.first_answer(connection_string)
        run(BINARIES / "pg_dump", "-Fd", "-j2", "-f", dump, connection_string)
    floor.forget(target)
    fresh.mkdir()
    shutil.chown(fresh, "postgres", "postgres")
    run("runuser", "-u", "postgres", "--", BINARIES / "initdb", "-D", fresh, "-A", "trust", "-k", cwd="/")
    with floor.server(fresh) as connection_string:
        connection_string = floor.as_superuser(connection_string, "postgres")
        floor.first_answer(connection_string)
        run(BINARIES / "psql", "-Xqd", connection_string, "-c", "CREATE DATABASE my_db")
        into = floor.as_superuser(f"host={floor.sockets()} dbname=my_db user=draupnir")
        run(BINARIES / "pg_restore", "-j2", "--no-owner", "--no-privileges", "-d", into, dump)
        run(BINARIES / "psql", "-Xqd", into, "-c", "VACUUM (ANALYZE)")
        floor.stop(fresh)
    size_bytes = _size_bytes(fresh)
    shutil.rmtree(fresh)
    shutil.rmtree(dump)
    return size_bytes
