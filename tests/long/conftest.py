"""The fixtures of the system tests: the same machine, the same service, and nothing left behind after each test."""

from __future__ import annotations

from tests.system.conftest import (
    _no_pool,
    _nothing_left_behind,
    _unharmed,
    backup,
    bystanders,
    image,
    instance,
    neighbour,
    service,
    source,
)

__all__ = [
    "_no_pool",
    "_nothing_left_behind",
    "_unharmed",
    "backup",
    "bystanders",
    "image",
    "instance",
    "neighbour",
    "service",
    "source",
]
