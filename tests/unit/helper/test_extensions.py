"""Laws of trusted extensions: each installed one gets the control file of its package, with trusted = true."""

from __future__ import annotations

from pathlib import Path

import pytest

from draupnir_helper import extensions, layout


@pytest.mark.parametrize(
    "text",
    [
        "comment = 'x'\ndefault_version = '1.0'\n",
        "trusted = false\nrelocatable = true",
        " trusted=false\n",
        "trusted = true\n",
    ],
)
def test_a_control_file_becomes_trusted_and_keeps_the_rest(text: str) -> None:
    lines = extensions.trusted(text).splitlines()
    assert [line for line in lines if "trusted" in line] == ["trusted = true"]
    assert [line for line in lines if "trusted" not in line] == [
        line for line in text.splitlines() if "trusted" not in line
    ]


def test_control_files_of_installed_extensions_are_bound_over_the_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extensions, "SHARE", tmp_path / "share")
    monkeypatch.setattr(layout, "RUN", tmp_path / "run")
    (tmp_path / "run").mkdir()
    original = tmp_path / "share/17/extension/vector.control"
    original.parent.mkdir(parents=True)
    original.write_text("default_version = '0.8.0'\n")
    ((source, destination, ignored, flags),) = extensions.bound(17, ["vector", "postgis"])
    assert (destination, ignored, flags) == (str(original), False, 0)
    assert "trusted = true" in Path(source).read_text()
    assert extensions.bound(16, ["vector"]) == []
    assert "trusted" not in original.read_text()
