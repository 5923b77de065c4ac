"""Laws of the list of subvolumes: with any content of a place, the list is complete and available."""

from __future__ import annotations

import os
from pathlib import Path

from draupnir_helper import subvolumes
from draupnir_helper.layout import Place


def test_a_file_with_an_id_as_name_is_unknown(tmp_path: Path) -> None:
    """A restored disk may have one. If it were ignored, its id could be reused."""
    place = tmp_path / Place.IMAGES
    (place / "7").mkdir(parents=True)
    (place / "8").touch()
    (place / "9").symlink_to("7")
    os.mkfifo(place / "10")
    (place / "7.json").touch()
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert subvolumes.ids(root, Place.IMAGES) == ([7], [f"{Place.IMAGES}/{name}" for name in ("10", "8", "9")])
    finally:
        os.close(root)
