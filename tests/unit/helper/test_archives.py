"""Archives are recognised by content, and only files and directories are unpacked."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draupnir_helper import ceilings
from draupnir_helper.jobs import archives, budget
from draupnir_helper.jobs.reports import JobError

pytestmark = pytest.mark.usefixtures("any_room")

CONTENT = {"PG_VERSION": b"17\n", "global/pg_control": b"\x00\x01" * 4096, "base/1/1259": b"row" * 50_000}
COMPRESSORS = {
    "gzip": ["gzip", "-c"],
    "zstd": ["zstd", "-cq"],
    "xz": ["xz", "-c"],
    "bzip2": ["bzip2", "-c"],
    "lz4": ["lz4", "-cq"],
    "lz4 of old": ["lz4", "-lcq"],
}


def tar_of(content: dict[str, bytes], *members: tarfile.TarInfo, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in members:
            tar.addfile(member)
    return buffer.getvalue()


def unpack(data: bytes, directory: Path) -> Path:
    archive, target = directory / "backup", directory / "target"
    archive.write_bytes(data)
    target.mkdir(exist_ok=True)
    archives.unpack(archive, target, lambda done, total: None)
    return target


def files_below(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def compress(name: str, data: bytes) -> bytes:
    return subprocess.run(COMPRESSORS[name], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("name", [None, *COMPRESSORS])
def test_an_archive_is_unpacked_completely(tmp_path: Path, name: str | None) -> None:
    """Plain or compressed by any known program, recognised by content, not by name."""
    data = tar_of(CONTENT)
    if name is not None:
        data = compress(name, data)
    assert files_below(unpack(data, tmp_path)) == CONTENT


def skippable(data: bytes, kind: int = 0) -> bytes:
    return bytes([0x50 | kind]) + b"\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_frames_that_a_decompressor_skips_may_come_first(tmp_path: Path, name: str) -> None:
    """pzstd writes such frames."""
    data = tar_of(CONTENT)
    half = len(data) // 2
    frames = [skippable(b"size") + compress(name, part) for part in (data[:half], data[half:])]
    assert files_below(unpack(skippable(b"", 15) + b"".join(frames), tmp_path)) == CONTENT


@pytest.mark.parametrize("data", [skippable(b""), skippable(b"") * 1000, skippable(b"x" * 10)[:-5]])
def test_frames_without_content_are_not_an_archive(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "backup").write_bytes(data)
    assert not archives.is_archive(tmp_path / "backup")


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_tar_dialect_come_out(tmp_path: Path, kind: int) -> None:
    content = {"/".join(["directory" * 5] * 3) + "/file": b"x"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert files_below(unpack(buffer.getvalue(), tmp_path)) == content


def hostile(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member


@pytest.mark.parametrize(
    "member",
    [
        hostile("../outside", tarfile.REGTYPE),
        hostile("a/../../outside", tarfile.REGTYPE),
        hostile("/etc/outside", tarfile.REGTYPE),
        hostile("..", tarfile.DIRTYPE),
        hostile("pg_wal", tarfile.SYMTYPE, "/var/wal"),
        hostile("inside", tarfile.SYMTYPE, "PG_VERSION"),
        hostile("hard", tarfile.LNKTYPE, "PG_VERSION"),
        hostile("hard", tarfile.LNKTYPE, "/etc/passwd"),
        hostile("disk", tarfile.BLKTYPE),
        hostile("tty", tarfile.CHRTYPE),
        hostile("pipe", tarfile.FIFOTYPE),
        hostile("/".join("d" * 40), tarfile.DIRTYPE),
    ],
    ids=lambda member: f"{member.name[:20]}-{member.type.decode()}",
)
def test_entries_other_than_files_and_directories_are_refused_by_name(tmp_path: Path, member: tarfile.TarInfo) -> None:
    canary = tmp_path / "outside"
    with pytest.raises(JobError) as caught:
        unpack(tar_of({"PG_VERSION": b"17\n"}, member), tmp_path)
    assert caught.value.code == "unsafe_archive"
    assert member.name[:100] in caught.value.detail
    assert not canary.exists()
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_modes_and_owners_of_the_archive_are_not_taken_over(tmp_path: Path) -> None:
    member = tarfile.TarInfo("setuid")
    member.mode, member.uid = 0o6777, 12345
    target = unpack(tar_of({}, member), tmp_path)
    found = (target / "setuid").stat()
    assert not found.st_mode & 0o7111
    assert found.st_uid != 12345


@pytest.mark.parametrize("name", [None, *COMPRESSORS])
def test_a_truncated_archive_is_refused(tmp_path: Path, name: str | None) -> None:
    data = tar_of(CONTENT)
    if name is not None:
        data = compress(name, data)
    for fraction in range(20):
        with pytest.raises(JobError) as caught:
            unpack(data[: max(20, len(data.rstrip(b"\0")) * fraction // 20)], tmp_path)
        assert caught.value.code in {"truncated_archive", "damaged_archive", "not_an_archive"}, fraction


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_flipped_byte_is_noticed_by_the_compressors_own_check(tmp_path: Path, name: str) -> None:
    data = bytearray(compress(name, tar_of({"file": bytes(range(256)) * 4000})))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(JobError) as caught:
        unpack(bytes(data), tmp_path)
    assert caught.value.code in {"damaged_archive", "truncated_archive"}


def test_a_damaged_header_in_the_middle_is_reported(tmp_path: Path) -> None:
    """tarfile stops there without an error, which would leave half a data directory."""
    data = bytearray(tar_of({"a": b"x" * 512, "b": b"y" * 512}))
    data[1024:1030] = b"\xff" * 6
    with pytest.raises(JobError) as caught:
        unpack(bytes(data), tmp_path)
    assert caught.value.code == "damaged_archive"


@pytest.mark.parametrize("size", [-1, -512, -1024, -(1 << 40)])
def test_a_header_that_points_backwards_is_damage_and_no_endless_loop(tmp_path: Path, size: int) -> None:
    member = tarfile.TarInfo("backwards")
    member.size = size
    data = tar_of({"PG_VERSION": b"17\n"})[:1024] + member.tobuf(tarfile.GNU_FORMAT) + b"x" * 2048
    with pytest.raises(JobError) as caught:
        unpack(data, tmp_path)
    assert caught.value.code in {"damaged_archive", "not_an_archive"}


@pytest.mark.parametrize("name", [None, "gzip"])
@pytest.mark.parametrize("dialect", ["gnu", "posix"])
def test_a_file_with_holes_comes_out_whole(tmp_path: Path, name: str | None, dialect: str) -> None:
    holed = tmp_path / "holed"
    with holed.open("wb") as file:
        file.write(b"head")
        file.seek(3_000_000)
        file.write(b"middle")
        file.truncate(5_000_000)
    (tmp_path / "after").write_bytes(b"after")
    command = ["tar", "-cS", f"--format={dialect}", "-C", str(tmp_path), "holed", "after"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(data) < 100_000, "tar has seen the holes"
    content = {path.name: path.read_bytes() for path in (holed, tmp_path / "after")}
    assert files_below(unpack(data if name is None else compress(name, data), tmp_path)) == content


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "truncated_archive"), (b"CREATE TABLE t();\n" * 100, "not_an_archive")],
)
def test_a_file_that_is_not_a_tar_is_refused(tmp_path: Path, data: bytes, code: str) -> None:
    with pytest.raises(JobError) as caught:
        unpack(compress("gzip", data), tmp_path)
    assert caught.value.code == code


def test_progress_counts_the_bytes_of_the_file_itself(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    archive = tmp_path / "backup"
    archive.write_bytes(compress("gzip", tar_of(CONTENT)))
    (tmp_path / "target").mkdir()
    record: Callable[[int, int], None] = lambda done, total: seen.append((done, total))  # noqa: E731
    archives.unpack(archive, tmp_path / "target", record)
    size = archive.stat().st_size
    assert seen
    assert all(0 <= done <= total == size for done, total in seen)
    assert seen[-1][0] == size


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 4000), garbage=st.binary(min_size=1, max_size=600))
def test_garbage_in_a_tar_never_writes_outside_nor_fails_otherwise(
    tmp_path_factory: pytest.TempPathFactory, position: int, garbage: bytes
) -> None:
    directory = tmp_path_factory.mktemp("garbage")
    data = bytearray(tar_of({"a/b": b"x" * 700, "c": b""}, hostile("d", tarfile.DIRTYPE)))
    data[position : position + len(garbage)] = garbage
    try:
        unpack(bytes(data), directory)
    except JobError as error:
        assert error.detail  # noqa: PT017
    outside = {path.name for path in directory.iterdir()}
    assert outside == {"backup", "target"}
    assert not any(path.is_symlink() for path in (directory / "target").rglob("*"))


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply the ratio from a megabyte on, so that the tests do not have to write a gigabyte."""
    monkeypatch.setattr(budget, "UNSUSPICIOUS_BYTES", 1024 * 1024)


def sparse(size: int) -> bytes:
    """Return a member in old GNU format that is a single hole."""
    member = tarfile.TarInfo("base/hole")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:398] = b"%011o\0" % 0  # the only piece: its start,
    header[398:410] = b"%011o\0" % 0  # and its length
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"\0" * 1024


BOMBS: dict[str, Callable[[], bytes]] = {
    "zeros": lambda: compress("zstd", tar_of({"base/zeros": b"\0" * 50_000_000})),
    "zeros behind the end": lambda: compress("zstd", tar_of(CONTENT) + b"\0" * 50_000_000),
    "a hole": lambda: sparse(50_000_000),
    "very many files": lambda: compress(
        "xz", tar_of({}, *(tarfile.TarInfo(f"base/{number}") for number in range(10_000)))
    ),
    "deep directories": lambda: compress(
        "xz", tar_of({}, *(tarfile.TarInfo(f"{number}/" + "d/" * 30 + "f") for number in range(1000)))
    ),
}


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("bomb", BOMBS)
def test_an_archive_with_a_too_high_ratio_is_refused(tmp_path: Path, bomb: str) -> None:
    with pytest.raises(JobError) as raised:
        unpack(BOMBS[bomb](), tmp_path)
    assert raised.value.code == "ratio_exceeded"
    assert sum(path.stat().st_size for path in (tmp_path / "target").rglob("*")) < 4 * 1024 * 1024


@pytest.mark.usefixtures("little")
def test_an_archive_with_a_ratio_of_a_hundred_is_accepted(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(1_000_000) + b"\0" * 100_000_000
    target = unpack(compress("zstd", tar_of({"base/1": content})), tmp_path)
    assert (target / "base/1").stat().st_size == len(content)


@pytest.mark.parametrize("name", [None, "zstd"])
def test_unpacking_stops_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    def shrinking(path: Path) -> os.statvfs_result:
        taken = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
        return os.statvfs_result((1, 1, 10**10, 0, 10**9 - taken, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", shrinking)
    monkeypatch.setattr(ceilings, "low_bytes", lambda size: 10**9 - 5_000_000)
    data = tar_of({"base/1": os.urandom(20_000_000)})
    with pytest.raises(JobError) as raised:
        unpack(data if name is None else compress(name, data), tmp_path)
    assert raised.value.code == "no_room"
    assert (tmp_path / "target/base/1").stat().st_size < 8_000_000
