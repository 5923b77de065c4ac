"""The numbers of ceilings, the ids of quota groups, and the valid orders of the quota unit."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest

from draupnir_helper import btrfs, ceilings, layout, postgres, quota_groups, quotas, wire
from draupnir_helper.layout import Place

GIB = 1024**3
GROUP = 2**48 + 777


def test_the_number_of_a_quota_group_never_changes() -> None:
    """They are on the disk, so no version may change them."""
    assert layout.quota_group(Place.INSTANCES, 4) == 2**48 + 2**26 + 4
    assert layout.quota_group(Place.UPLOADS, 4) == 2**48 + 2 * 2**26 + 4
    assert layout.quota_group(Place.WORK, wire.MAX_ID) == 2**48 + 4 * 2**26 - 1
    assert layout.quota_group(Place.IMAGES, 4) is None


@pytest.mark.parametrize("place", [Place.INSTANCES, Place.UPLOADS, Place.WORK])
@pytest.mark.parametrize("some_id", [1, 4, wire.MAX_ID])
def test_a_group_id_maps_to_its_owner(place: Place, some_id: int) -> None:
    group = layout.quota_group(place, some_id)
    assert group is not None
    assert layout.quota_group_owner(group) == (place, some_id)


@pytest.mark.parametrize("group", [0, 5, 2**48 + 1, 2**49 + 2**26 + 4, 2**48 + 2**40])
def test_a_foreign_group_has_no_owner(group: int) -> None:
    assert layout.quota_group_owner(group) is None


@pytest.mark.parametrize("max_bytes", [wire.MIN_MAX_BYTES, 200 * 1024**2, 20 * GIB, 2**50])
def test_the_limit_has_a_reserve_for_wal_above_the_ceiling(max_bytes: int) -> None:
    limit_bytes = ceilings.limit_bytes(max_bytes, extended=False)
    assert limit_bytes - max_bytes >= 2 * ceilings.wal_bytes(max_bytes)
    extended_bytes = ceilings.limit_bytes(max_bytes, extended=True)
    assert extended_bytes - limit_bytes == limit_bytes - max_bytes


@pytest.mark.parametrize("size_bytes", [512 * 1024**2, 3 * GIB, 60 * GIB, 1000 * GIB, 2**50])
def test_the_watermarks_are_in_order_and_leave_most_of_the_disk(size_bytes: int) -> None:
    assert 0 < ceilings.critical_bytes(size_bytes) < ceilings.low_bytes(size_bytes) <= size_bytes // 8


def test_an_instance_at_its_ceiling_reads_and_checkpoints() -> None:
    def text(*, read_only: bool) -> str:
        ceiling = wire.Ceiling(max_bytes=GIB, read_only=read_only, extended=False)
        return postgres.instance_text("/conf", ceiling, {})

    assert "max_wal_size = '128MB'" in text(read_only=False)
    assert "default_transaction_read_only" not in text(read_only=False)
    assert "default_transaction_read_only = 'on'" in text(read_only=True)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[int, ...]]]:
    """Record the quota unit's requests to the kernel, with a directory that looks like root's."""
    calls: list[tuple[int, tuple[int, ...]]] = []

    def ioctl(_: int, request: int, argument: bytes) -> int:
        calls.append((request, struct.unpack(f"={len(argument) // 8}Q", argument)))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(quota_groups, "DIRECTORY", str(tmp_path))
    monkeypatch.setattr(quota_groups, "DATA", str(tmp_path))
    return calls


def order(tmp_path: Path, text: str) -> None:
    path = tmp_path / "777"
    path.write_text(text)
    path.chmod(0o600)
    quota_groups.main("777")


@pytest.mark.skipif(os.getuid() != 0, reason="the file has to be root's")
def test_a_group_is_made_limited_given_a_member_or_removed(
    tmp_path: Path, asked: list[tuple[int, tuple[int, ...]]]
) -> None:
    order(tmp_path, f"{GROUP} 1000\n{GROUP + 1} 2000 300\n300 0\n{GROUP + 2} 0\n")
    assert [arguments for _, arguments in asked] == [
        (1, GROUP), (GROUP, 1, 1000, 0, 0, 0),
        (1, GROUP + 1), (GROUP + 1, 1, 2000, 0, 0, 0), (1, 300, GROUP + 1),
        (0, 300), (0, GROUP + 2),
    ]  # fmt: skip


@pytest.mark.skipif(os.getuid() != 0, reason="the file has to be root's")
@pytest.mark.parametrize(
    "text",
    ["x", f"{GROUP}", f"{GROUP} -1", f"{GROUP} 1 2 3", f"{GROUP}  1", f"{GROUP} 0x10", "300 1000", f"{GROUP} ٣",
     f"{2**49} 1000", f"{GROUP} {'9' * 20}", "\n", f"{GROUP} 1\n" * 5000],
)  # fmt: skip
def test_an_invalid_order_is_refused_before_any_change(
    tmp_path: Path, asked: list[tuple[int, tuple[int, ...]]], text: str
) -> None:
    with pytest.raises((SystemExit, UnicodeDecodeError)):
        order(tmp_path, f"{GROUP} 1000\n{text}\n")
    assert asked == []


@pytest.mark.skipif(os.getuid() != 0, reason="the file has to be root's")
@pytest.mark.parametrize("name", ["../777", "", "x", "-1", "7 7", "٣", "9" * 20])
def test_a_name_that_is_not_a_number_is_refused(name: str, asked: list[object]) -> None:
    with pytest.raises(SystemExit):
        quota_groups.main(name)
    assert asked == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("spoil", ["owner", "mode", "link", "directory"])
def test_a_file_that_is_not_roots_alone_is_refused(
    tmp_path: Path, asked: list[tuple[int, tuple[int, ...]]], spoil: str
) -> None:
    path = tmp_path / "777"
    if spoil == "directory":
        path.mkdir()
    else:
        path.write_text(f"{GROUP} 1000\n")
        path.chmod(0o622 if spoil == "mode" else 0o600)
    if spoil == "owner":
        os.chown(path, 1, 0)
    if spoil == "link":
        path.rename(tmp_path / "other")
        path.symlink_to(tmp_path / "other")
    with pytest.raises((SystemExit, OSError)):
        quota_groups.main("777")
    assert asked == []


@pytest.mark.parametrize("below_the_end", [0, 3, 100])
def test_no_group_of_another_kind_is_made_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below_the_end: int
) -> None:
    """After the highest id the numbers of the next place begin."""
    made = list[int]()
    monkeypatch.setattr(quotas, "_SYSFS", tmp_path)
    monkeypatch.setattr(quotas, "_carry_out", lambda orders: made.extend(group for group, _ in orders))
    monkeypatch.setattr(quotas, "_kept", set())
    monkeypatch.setattr(btrfs, "filesystem_id", lambda root: "id")
    directory = tmp_path / "id/qgroups"
    directory.mkdir(parents=True)
    (directory / "mode").write_text("squota\n")
    first = wire.MAX_ID - below_the_end
    quotas.Quotas(0).make_ahead(Place.INSTANCES, first, 2**30)
    ids = range(first, min(first + quotas.AHEAD, wire.MAX_ID + 1))
    assert [layout.quota_group_owner(group) for group in made] == [(Place.INSTANCES, each) for each in ids]
