"""Settings of Postgres in requests: a bounded map of names to values, each checked against parameters.py."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from draupnir_helper.parameters import GROUPS, PARAMETERS, applicable, fault

__all__ = ["GROUPS", "PARAMETERS", "Parameters", "applicable", "fault"]


def require_parameters(values: dict[str, str]) -> dict[str, str]:
    """Return the settings if all are valid. Raises ValueError, which names the first fault."""
    for name, value in values.items():
        if found := fault(name, value):
            raise ValueError(f"the setting {name[:60]!r} {found}")
    return values


Parameters = Annotated[dict[str, str], Field(max_length=len(PARAMETERS)), AfterValidator(require_parameters)]
