"""The hand-over of many tables, and of many databases with many roles, as the journal of the job shows it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.bench.figures import Figure
from tests.system.backups import Source
from tests.system.service import Service, run

BOUND_S = 10
TABLES = 20_000
DATABASES, ROLES = 100, 1000


def measure(service: Service, directory: Path, times: int) -> list[Figure]:
    """Measure both; the superuser owns the tables, so that each of them gets another owner."""
    return [
        Figure(f"hand over {TABLES} tables", "s", measured(service, directory, times, tables), bound=BOUND_S),
        Figure(
            f"hand over {DATABASES} databases and {ROLES} roles",
            "s",
            measured(service, directory, times, databases),
            bound=BOUND_S,
        ),
    ]


def measured(service: Service, directory: Path, times: int, fill: Callable[[Source], None]) -> list[float]:
    """Return the seconds of the hand-over, some times."""
    source = Source.empty(directory / fill.__name__, "--locale=C.UTF-8")
    with (source.data / "postgresql.conf").open("a") as file:
        file.write("fsync = off\nautovacuum = off\nmax_locks_per_transaction = 256\n")
    source.start()
    fill(source)
    source.stop()
    backup = source.tarball("backup.tar.zst", "--zstd")
    series = [hand_over(service, backup) for _ in range(times)]
    shutil.rmtree(source.directory)
    return series


def tables(source: Source) -> None:
    source.sql("CREATE DATABASE my_db", "postgres")
    source.script(f"""
        DO $$ BEGIN
          FOR i IN 1..{TABLES} LOOP
            EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, text text)', i);
            IF i % 200 = 0 THEN COMMIT; END IF;
          END LOOP;
        END $$;
    """)


def databases(source: Source) -> None:
    creating = [f"SELECT format('CREATE DATABASE d%s', i) FROM generate_series(1, {DATABASES}) i\n\\gexec"]
    creating += [f"SELECT format('CREATE ROLE r%s LOGIN', i) FROM generate_series(1, {ROLES}) i\n\\gexec"]
    source.script("\n".join(creating) + "\n", "postgres")


def hand_over(service: Service, backup: Path) -> float:
    """Finalise the backup; return the seconds between two steps of the job."""
    image_id = service.make_image(backup, "SELECT 1;")
    service.destroy_image(image_id)
    run("journalctl", "--sync")
    listing = ["journalctl", "--namespace=*", "-o", "json", "-u", f"draupnir-finalise-{image_id}"]
    lines = [json.loads(line) for line in run(*listing).stdout.splitlines()]
    at_s = {str(line["MESSAGE"]): int(line["__REALTIME_TIMESTAMP"]) / 1e6 for line in lines}
    return at_s["vacuuming and analysing"] - at_s["handing over what the superuser owns"]
