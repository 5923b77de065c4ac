"""Laws of the room for a script: a hint below the size of the data, a refusal if there is next to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from draupnir_helper.jobs import rooms

GIB = 1024**3


@pytest.mark.parametrize(
    ("disk_bytes", "left_bytes", "codes", "remedy"),
    [
        (2 * GIB, 4 * GIB, [], ""),
        (GIB // 2, 4 * GIB, ["room_short"], "Destroy images"),
        (
            2 * GIB,
            GIB // 2,
            ["room_short"],
            "Raise max_image_bytes in /etc/draupnir/config.toml and restart draupnir-helper",
        ),
        (1024, 4 * GIB, ["room_missing"], "Destroy images"),
        (
            2 * GIB,
            1024,
            ["room_missing"],
            "Raise max_image_bytes in /etc/draupnir/config.toml and restart draupnir-helper",
        ),
        (
            2 * GIB,
            0,
            ["room_missing"],
            "Raise max_image_bytes in /etc/draupnir/config.toml and restart draupnir-helper",
        ),
    ],
)
def test_the_smaller_of_disk_and_limit_decides(disk_bytes: int, left_bytes: int, codes: list[str], remedy: str) -> None:
    rows = list(rooms._problems(GIB, disk_bytes, left_bytes))
    assert [row.code for row in rows] == codes
    assert all(remedy in row.remedy for row in rows)


def test_the_files_of_all_directories_count(tmp_path: Path) -> None:
    (tmp_path / "base/5").mkdir(parents=True)
    (tmp_path / "base/5/16384").write_bytes(b"x" * 1000)
    (tmp_path / "PG_VERSION").write_bytes(b"17\n")
    assert list(rooms.problems(tmp_path, 1003)) == []
    (row,) = rooms.problems(tmp_path, 1002)
    assert row.code == "room_missing"
