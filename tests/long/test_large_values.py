"""A value of half a gigabyte is rewritten with its table, and does not stay when the script removes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.system.backups import Source
from tests.system.faults import await_that
from tests.system.service import Service

SIZE_BYTES = 500_000_000
CONTENT = f"""
CREATE TABLE files (id int PRIMARY KEY, name text, content text);
ALTER TABLE files ALTER content SET STORAGE EXTERNAL;
INSERT INTO files SELECT 1, 'of Jane Doe, number 7', repeat('a line of a very long file. ', {SIZE_BYTES} / 28);
"""


@pytest.mark.parametrize(("change", "least"), [("name = ''", SIZE_BYTES - 28), ("content = ''", 0)])
def test_a_row_of_half_a_gigabyte(service: Service, change: str, least: int) -> None:
    # /tmp is too small.
    source = Source.empty(Path("/var/tmp/large_values"), "--locale=C.UTF-8")
    source.start()
    source.sql("CREATE DATABASE my_db", "postgres")
    source.script(CONTENT)
    source.stop()
    backup = source.tarball("large.tar.zst", "--zstd")
    image_id = service.create_image(f"\\c my_db\nUPDATE files SET {change};")
    service.upload(image_id, backup)
    shutil.rmtree(source.directory)
    service.finalise(image_id, headers={"Prefer": "respond-async"})
    await_that(lambda: service.image(image_id)["status"] != "finalising", "the image is ready", within_s=1200)
    assert service.image(image_id)["ready"], service.image(image_id)
    files = (path for path in Path(f"/srv/draupnir/image_snapshots/{image_id}").rglob("*") if path.is_file())
    size_bytes = sum(path.stat().st_size for path in files)
    assert least <= size_bytes <= least + SIZE_BYTES // 4, "the old copy is gone"
    instance_id = int(service.create_instance(image_id)["id"])
    assert least <= int(service.answer(instance_id, "SELECT length(content) FROM files")) <= SIZE_BYTES
    service.destroy_instance(instance_id)
    service.destroy_image(image_id)
