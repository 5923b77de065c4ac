"""Uploaded hostile archives: none becomes an image, and each fails with an expected code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.archives import ARCHIVES, TAKEN
from tests.hostile.uploading import UNFORESEEN, outcome
from tests.system.service import Service

GROUPS = sorted({name.partition(": ")[0] for name in ARCHIVES})


@pytest.mark.usefixtures("_unharmed")
@pytest.mark.parametrize("group", GROUPS)
def test_no_hostile_archive_becomes_an_image(service: Service, tmp_path: Path, group: str) -> None:
    chosen = {name: archive for name, archive in ARCHIVES.items() if name.startswith(f"{group}: ")}
    found = {name: outcome(service, archive.make(), tmp_path) for name, archive in chosen.items()}
    assert {name: code for name, code in found.items() if code == "ready" or code in UNFORESEEN} == {}
    # If the archive itself is valid, its control file is not.
    assert {name: code for name, code in found.items() if TAKEN not in chosen[name].codes} == {
        name: code for name, code in found.items() if code in chosen[name].codes and TAKEN not in chosen[name].codes
    }
