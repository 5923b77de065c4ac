"""A hostile data directory makes its image fail with a code, or gives an instance's user no access."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.hostile.directories import DIRECTORIES, Directory
from tests.hostile.escapes import escaped
from tests.hostile.uploading import UNFORESEEN, finalised
from tests.system.backups import Source
from tests.system.service import Service


@pytest.mark.usefixtures("_unharmed")
@pytest.mark.parametrize("directory", DIRECTORIES.values(), ids=DIRECTORIES)
def test_a_hostile_data_directory_fails_or_opens_nothing(
    service: Service, source: Source, tmp_path: Path, directory: Directory
) -> None:
    image_id = service.create_image()
    try:
        service.upload(image_id, directory.make(source, tmp_path / "hostile"))
        # pytest would keep all of them, and /tmp is too small.
        shutil.rmtree(tmp_path / "hostile")
        code = finalised(service, image_id, directory.patience_s)
        assert code in directory.codes if directory.codes else code not in UNFORESEEN
        if code == "ready":
            instance_id = int(service.create_instance(image_id)["id"])
            assert escaped(service, instance_id, directory.superusers) == []
    finally:
        service.destroy_image(image_id)
