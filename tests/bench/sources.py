"""The data of the measurements: backups of pgbench data, their images, and one extended to ten gigabytes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.bench import floor
from tests.system.backups import Source
from tests.system.service import ANONYMISE, Service, run

SMALL_SCALE = 1
GROWN_BY = 12
# A tenth of the bytes, for scripts that change a tenth.
PEOPLE = (
    "CREATE TABLE people AS SELECT aid AS id, 'p' || aid || '@corp.example' AS email,"
    " md5(aid::text) || ' lives in a street' AS note FROM pgbench_accounts WHERE aid % 8 = 0"
)
FILLERS = [f"filler_{number}" for number in range(1, GROWN_BY)]


@dataclass(frozen=True)
class Images:
    """Ids of ready images of 0.1 GB, of the requested scale, and of 10 GB; tarballs of the second; free space."""

    small: int
    middle: int
    large: int
    tarball: Path
    gzipped: Path
    directory: Path


def make(service: Service, directory: Path, scale: int) -> Images:
    """Upload and finalise all of them."""
    source = Source(directory / "production")
    source.start()
    # With the default, half of the backup would be unneeded WAL.
    source.sql("ALTER SYSTEM SET max_wal_size = '64MB'")
    source.sql("ALTER SYSTEM SET min_wal_size = '32MB'")
    source.sql("SELECT pg_reload_conf()")
    source.pgbench(SMALL_SCALE)
    source.stop()
    small = service.make_image(source.tarball("small.tar"), ANONYMISE)
    source.start()
    source.pgbench(scale)
    for filler in FILLERS:
        source.sql(f"CREATE TABLE {filler} (LIKE pgbench_accounts)")
    source.sql(PEOPLE)
    source.sql("ALTER TABLE people ADD PRIMARY KEY (id)")
    source.stop()
    tarball = source.tarball("backup.tar")
    # The pool is for the newest image, which has to be the measured one.
    large, middle = (service.make_image(tarball, ANONYMISE) for _ in range(2))
    grow(floor.DATA / "image_snapshots" / str(large))
    gzipped = source.tarball("backup.tar.gz", "-I", "gzip -1")
    return Images(small, middle, large, tarball, gzipped, directory)


def grow(image: Path) -> None:
    """Give the empty tables of a published image the pages of pgbench_accounts, by reference: real relation files."""
    files = _relation_files(image)
    run("btrfs", "property", "set", "-ts", image, "ro", "false")
    first = image / files["pgbench_accounts"]
    for filler in FILLERS:
        for segment in sorted(first.parent.glob(f"{first.name}*")):
            target = image / f"{files[filler]}{segment.name.removeprefix(first.name)}"
            if segment.suffix in {"", ".1", ".2"} and "_" not in segment.name:
                run("cp", "--reflink=always", segment, target)
                shutil.chown(target, "upload", "draupnir-data")
                target.chmod(0o660)
    run("btrfs", "property", "set", "-ts", image, "ro", "true")


def _relation_files(image: Path) -> dict[str, str]:
    target = floor.DATA / "floor-fillers"
    floor.snapshot(image, target)
    with floor.server(target) as connection_string:
        floor.first_answer(connection_string)
        with psycopg.connect(connection_string) as connection:
            found = connection.execute(
                "SELECT relname, pg_relation_filepath(oid) FROM pg_class WHERE relname = ANY (%s)",
                [[*FILLERS, "pgbench_accounts"]],
            ).fetchall()
    floor.forget(target)
    return dict(found)
