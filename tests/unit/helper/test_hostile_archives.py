"""Every hostile archive is refused with its code, or unpacked as files and directories inside the target."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from draupnir_helper.jobs import uploads
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows
from tests.hostile.archives import ARCHIVES, TAKEN, Archive

# Roughly the limit of the job's sandbox, which only an archive can exceed.
MEMORY_BYTES = 1 << 30


@pytest.fixture
def _bounded_memory() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + MEMORY_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def outcome(directory: Path, archive: Archive) -> str:
    (directory / "seal").mkdir()
    (directory / "target").mkdir()
    (directory / "seal/backup").write_bytes(archive.make())
    try:
        uploads.fill(directory / "seal", directory / "target", lambda done, total: None, Rows(directory))
    except JobError as error:
        assert error.detail  # noqa: PT017
        return error.code
    return TAKEN


@pytest.mark.usefixtures("_bounded_memory")
@pytest.mark.parametrize("archive", ARCHIVES.values(), ids=ARCHIVES)
def test_a_hostile_archive_is_refused_or_harmless(tmp_path: Path, archive: Archive) -> None:
    assert outcome(tmp_path, archive) in archive.codes
    assert {path.name for path in tmp_path.iterdir()} == {"seal", "target"}
    assert [path.name for path in (tmp_path / "seal").iterdir()] == ["backup"]
    for directory, directories, files in os.walk(tmp_path / "target"):
        for name in (*directories, *files):
            found = os.lstat(Path(directory, name))
            assert stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode), name
            assert not found.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX), name
    assert not Path("/etc/outside").exists()
    assert not Path("/outside").exists()
