"""Replaces a missing pystemd, so that modules can be imported; code that uses systemd has no unit tests."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from draupnir_helper import ceilings


def _stand_in(attribute: str) -> type[Exception]:
    if attribute.startswith("__"):
        raise AttributeError(attribute)
    return type(attribute, (Exception,), {})


if importlib.util.find_spec("pystemd") is None:
    for _name in ("", ".dbusexc", ".dbuslib", ".systemd1", ".systemd1.unit_signatures"):
        _module = ModuleType(f"pystemd{_name}")
        vars(_module)["__getattr__"] = _stand_in
        sys.modules[_module.__name__] = _module


@pytest.fixture
def any_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the disk look not low."""
    monkeypatch.setattr(ceilings, "low_bytes", lambda size_bytes: 0)
