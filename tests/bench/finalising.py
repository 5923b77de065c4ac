"""Measures the way from a tarball to an image: unpacking, and the whole finalise, each beside the manual steps."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from draupnir_helper import postgres
from tests.bench import floor, helper
from tests.bench.figures import Figure, in_turn
from tests.bench.sources import Images
from tests.system.backups import BINARIES
from tests.system.service import ANONYMISE, Service, run

BENCH_IMAGE = 40_000_000  # far from any id that the metadata give
SCRIPT = Path("/run/draupnir-bench.sql")


def measure(service: Service, images: Images, times: int) -> list[Figure]:
    """Measure both within the same filesystem, which already has the tarball."""
    figures = []
    for name, tarball in (("plain tar", images.tarball), ("tar with gzip", images.gzipped)):
        title = f"extract a {name} of {tarball.stat().st_size / 1e6:.0f} MB"
        ours, bare = in_turn(times, partial(extract, tarball), partial(untar, tarball))
        figures.append(Figure(title, "s", ours, bare, "tar x", bound=1.3))
    title = f"finalise a plain tar of {images.tarball.stat().st_size / 1e6:.0f} MB"
    ours, bare, durable = in_turn(
        times,
        lambda: finalise(service, images.tarball),
        lambda: by_hand(images.tarball),
        lambda: by_hand(images.tarball, on_disk=True),
    )
    figures.append(Figure(title, "s", ours, bare, "tar x + recovery + script + vacuumdb", bound=1.3))
    # A ready image is on the disk; the manual result would be lost after a power failure.
    figures.append(Figure(title, "s", ours, durable, "the same and sync"))
    return figures


def extract(tarball: Path) -> float:
    """Seconds of the extract job on the tarball."""
    helper.ask("create_upload", image_id=BENCH_IMAGE)
    _upload(tarball, BENCH_IMAGE)
    helper.ask("seal_upload", image_id=BENCH_IMAGE)
    began = time.perf_counter()
    job = helper.ask("start_extract", image_id=BENCH_IMAGE)
    while job["state"] == "running":
        time.sleep(0.005)
        job = helper.ask("inspect_job", kind="extract", image_id=BENCH_IMAGE)
    seconds = time.perf_counter() - began
    assert job["state"] == "succeeded", job
    helper.ask("stop_jobs", image_id=BENCH_IMAGE)
    helper.ask("destroy_image", image_id=BENCH_IMAGE)
    helper.ask("empty_trash")
    return seconds


def untar(tarball: Path) -> float:
    """Seconds of tar x of the tarball."""
    with _unpacked(tarball) as (_, seconds):
        return seconds


def finalise(service: Service, tarball: Path, script: str = ANONYMISE, *, keep_residue: bool = False) -> float:
    """Return the seconds from `done` to a ready image, trial boot included."""
    image_id = service.create_image(script)
    if keep_residue:
        service.ask("PATCH", f"/images/{image_id}", {"keep_residue": True})
    _upload(tarball, image_id)
    began = time.perf_counter()
    answer = service.finalise(image_id)
    seconds = time.perf_counter() - began
    assert answer.status_code == 200, answer.text
    service.destroy_image(image_id)
    helper.ask("empty_trash")
    return seconds


def by_hand(tarball: Path, *, on_disk: bool = False) -> float:
    """Seconds of tar x, recovery, script, VACUUM and ANALYZE, and a clean stop, with the settings of our own job.

    With `on_disk` until all of it has been written as well.
    """
    SCRIPT.write_text(ANONYMISE)
    with _unpacked(tarball) as (data, seconds):
        began = time.perf_counter()
        sockets = floor.sockets()
        settings = postgres.finalise_settings(str(sockets), {"max_prepared_transactions": "5"})
        for name, text in postgres.finalise_files(settings).items():
            (sockets / name).write_text(text)
        as_postgres: list[str | Path] = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        control: list[str | Path] = [*as_postgres, BINARIES / "pg_ctl", "-D", data, "-s", "-w", "-l", "/dev/null"]
        options = f"-c config_file={sockets}/postgresql.conf -c shared_preload_libraries="
        asking: list[str | Path] = ["-h", sockets, "-U", "postgres"]
        run(*control, "-o", options, "start", cwd="/")
        run(BINARIES / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", *asking, "-d", "postgres", "-f", SCRIPT)
        run(BINARIES / "vacuumdb", "--all", "--analyze", "--quiet", "--jobs=2", *asking)
        run(*control, "-m", "fast", "stop", cwd="/")
        if on_disk:
            run("sync", "-f", data)
        return seconds + time.perf_counter() - began


@contextmanager
def _unpacked(tarball: Path) -> Iterator[tuple[Path, float]]:
    """Provide the directory that tar x created, and its seconds; remove it at the end."""
    target = floor.DATA / "floor-tar"
    run("btrfs", "subvolume", "create", target)
    data = target / "data"
    data.mkdir(mode=0o700)
    shutil.chown(data, "postgres", "postgres")
    copy = target / tarball.name
    shutil.copyfile(tarball, copy)
    _settle()
    began = time.perf_counter()
    run("tar", "-xf", copy, "-C", data)
    seconds = time.perf_counter() - began
    yield data, seconds
    floor.forget(target)


def _upload(tarball: Path, image_id: int) -> None:
    upload = floor.DATA / f"chroot/draupnir/image_uploads/{image_id}/{tarball.name}"
    shutil.copyfile(tarball, upload)
    shutil.chown(upload, "upload", "upload")
    _settle()


def _settle() -> None:
    """Wait until the disk is idle, so that deletions of the previous turn do not affect this one."""
    # The filesystem's cleaner thread frees deleted data every half minute.
    run("mount", "-o", "remount,commit=1", floor.DATA)
    run("btrfs", "subvolume", "sync", floor.DATA)
    run("mount", "-o", "remount,commit=30", floor.DATA)
    run("sync", "-f", floor.DATA)
