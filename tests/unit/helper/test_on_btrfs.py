"""Laws of subvolumes on a btrfs that these tests create and mount. They need root and mkfs.btrfs, but no systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from draupnir_helper import btrfs, job_texts, layout, subvolumes
from draupnir_helper.jobs.reports import PRIVATE_NAME
from draupnir_helper.layout import Place

UID = 4321


def _mounted(directory: Path) -> bool:
    if os.geteuid() != 0 or shutil.which("mkfs.btrfs") is None:
        return False
    disk = directory.with_suffix(".btrfs")
    with disk.open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    subprocess.run(["mkfs.btrfs", "-q", disk], check=True)
    options = "loop,nodev,nosuid,noexec,user_subvol_rm_allowed"
    return subprocess.run(["mount", "-o", options, disk, directory], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Provide the top of a new data filesystem."""
    directory = tmp_path_factory.mktemp("disk")
    if not _mounted(directory):
        pytest.skip("no btrfs can be made and mounted here")
    for place in (*Place, layout.TRASH):
        (directory / place).mkdir(parents=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


@pytest.fixture
def root(disk: Path) -> Iterator[int]:
    """Provide a descriptor of its top; delete everything afterwards."""
    descriptor = os.open(disk, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    for place in Place:
        for some_id in subvolumes.ids(descriptor, place)[0]:
            subvolumes.discard(descriptor, place, some_id)
    assert subvolumes.empty_trash(descriptor) == 0
    os.close(descriptor)


def made(root: int, disk: Path, some_id: int = 1) -> Path:
    """Create a writable subvolume with a file."""
    subvolumes.make(root, Place.WORK, some_id, uid=UID, gid=UID, group=None)
    path = disk / Place.WORK / str(some_id)
    (path / "file").write_text("data")
    return path


def test_a_subvolume_belongs_to_its_owner_alone(root: int, disk: Path) -> None:
    found = made(root, disk).stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (UID, UID, 0o700)
    assert subvolumes.owner(root, Place.WORK, 1) == UID


def test_an_existing_subvolume_stays_unchanged(root: int, disk: Path) -> None:
    path = made(root, disk)
    subvolumes.make(root, Place.WORK, 1, uid=0, gid=0, group=None)
    assert (path / "file").read_text() == "data"
    assert subvolumes.owner(root, Place.WORK, 1) == UID


def test_a_copy_without_an_owner_cannot_be_written(root: int, disk: Path) -> None:
    work = made(root, disk)
    subvolumes.copy(root, Place.WORK, Place.IMAGES, 1, 1, owner=None)
    (work / "file").write_text("other data")
    copy = disk / Place.IMAGES / "1"
    assert (copy / "file").read_text() == "data"
    with pytest.raises(OSError, match="Read-only"):
        (copy / "file").write_text("x")
    image, source = subvolumes.find(root, Place.IMAGES, 1), subvolumes.find(root, Place.WORK, 1)
    assert image is not None
    assert source is not None
    assert (image.read_only, source.read_only, image.parent_uuid) == (True, False, source.uuid)


def test_a_copy_with_an_owner_changes_nothing_in_its_source(root: int, disk: Path) -> None:
    made(root, disk)
    subvolumes.copy(root, Place.WORK, Place.IMAGES, 1, 1, owner=None)
    subvolumes.copy(root, Place.IMAGES, Place.INSTANCES, 1, 2, owner=(UID + 1, UID + 1))
    (disk / Place.INSTANCES / "2" / "file").write_text("changed")
    assert (disk / Place.IMAGES / "1" / "file").read_text() == "data"
    assert subvolumes.owner(root, Place.INSTANCES, 2) == UID + 1


def test_a_copy_is_made_once_and_nests_nothing(root: int, disk: Path) -> None:
    made(root, disk)
    for _ in range(2):
        subvolumes.copy(root, Place.WORK, Place.INSTANCES, 1, 2, owner=(UID, UID))
    assert sorted(path.name for path in (disk / Place.INSTANCES / "2").iterdir()) == ["file"]


def test_a_missing_source_is_not_copied(root: int) -> None:
    with pytest.raises(FileNotFoundError):
        subvolumes.copy(root, Place.IMAGES, Place.INSTANCES, 1, 2, owner=(UID, UID))
    assert subvolumes.ids(root, Place.INSTANCES) == ([], [])


def test_a_discarded_subvolume_is_in_the_trash_until_that_is_emptied(root: int, disk: Path) -> None:
    made(root, disk)
    for _ in range(2):
        subvolumes.discard(root, Place.WORK, 1)
        assert not subvolumes.exists(root, Place.WORK, 1)
        assert subvolumes.look_at_trash(root) == (1, [])
    assert subvolumes.empty_trash(root) == 0
    assert list((disk / layout.TRASH).iterdir()) == []


def test_the_trash_is_emptied_of_read_only_and_nested_subvolumes(root: int, disk: Path) -> None:
    path = made(root, disk)
    with btrfs.directory(str(path)) as parent:
        btrfs.create(parent, "nested")
    (path / "nested/folder").mkdir()
    with btrfs.directory(str(path / "nested/folder")) as parent, btrfs.directory(str(path)) as source:
        btrfs.snapshot(source, parent, "deeper", read_only=True)
    subvolumes.copy(root, Place.WORK, Place.IMAGES, 1, 1, owner=None)
    subvolumes.discard(root, Place.WORK, 1)
    subvolumes.discard(root, Place.IMAGES, 1)
    assert subvolumes.empty_trash(root) == 0


def test_an_unfinished_copy_is_removed_and_repeated(root: int, disk: Path) -> None:
    """A killed helper leaves a subvolume under its temporary name."""
    made(root, disk)
    (disk / Place.WORK / "1").rename(disk / Place.WORK / f"{layout.NEW_PREFIX}1")
    subvolumes.make(root, Place.WORK, 1, uid=UID, gid=UID, group=None)
    assert list((disk / Place.WORK / "1").iterdir()) == []
    (disk / Place.WORK / "1").rename(disk / Place.WORK / f"{layout.NEW_PREFIX}1")
    subvolumes.sweep(root)
    assert list((disk / Place.WORK).iterdir()) == []


def test_the_error_text_of_a_job_is_read_through_no_link(root: int, disk: Path) -> None:
    work = made(root, disk)
    subvolumes.make(root, Place.UPLOADS, 1, uid=UID, gid=UID, group=None)
    (work / PRIVATE_NAME).write_text("row 7")
    job_texts.keep(root, job_texts.ERROR, 1)
    assert job_texts.read(root, job_texts.ERROR, 1) == "row 7"
    (work / PRIVATE_NAME).unlink()
    (work / PRIVATE_NAME).symlink_to("/etc/hostname")
    job_texts.keep(root, job_texts.ERROR, 1)
    assert job_texts.read(root, job_texts.ERROR, 1) is None
