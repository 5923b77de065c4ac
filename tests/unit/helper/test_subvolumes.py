"""Laws of the list of what is there: whatever lies in a place, the list is complete and can be had."""

from __future__ import annotations

import os
from pathlib import Path

from draupnir_helper import subvolumes
from draupnir_helper.layout import Place


def test_what_has_the_name_of_an_id_and_is_not_a_directory_is_unknown(tmp_path: Path) -> None:
    """A restored disk may have it. Not to be told of it would give the id to something new."""
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
