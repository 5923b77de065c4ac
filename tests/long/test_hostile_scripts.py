"""A hostile script makes its image fail, or leaves nothing with which an instance's user could escalate."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.escapes import escaped
from tests.hostile.scripts import SCRIPTS, Script
from tests.hostile.uploading import finalised
from tests.system.service import Service


@pytest.mark.usefixtures("_unharmed")
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_hostile_script_fails_or_opens_nothing(service: Service, backup: Path, script: Script) -> None:
    image_id = service.create_image(script.whole())
    try:
        service.upload(image_id, backup)
        code = finalised(service, image_id)
        assert code in script.codes
        if code == "ready":
            instance_id = int(service.create_instance(image_id)["id"])
            assert escaped(service, instance_id) == []
    finally:
        service.destroy_image(image_id)
