"""Laws of allowances: the helper enforces root's configuration against the daemon."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from draupnir_helper import allowances, manifests, wire
from draupnir_helper.errors import HelperError
from draupnir_helper.layout import Place
from draupnir_helper.settings import Settings
from draupnir_helper.wire import ErrorCode

GIB = 1024**3
SETTINGS = Settings(max_instance_bytes="2G")
PEM = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"


def ceiling(max_bytes: int, *, extended: bool = False) -> wire.Ceiling:
    return wire.Ceiling(max_bytes=max_bytes, read_only=extended, extended=extended)


def start(max_bytes: int | None, *, direct: bool = False, superuser: bool = False) -> wire.StartInstance:
    return wire.StartInstance(
        instance_id=4, image_id=1, owner="jane@example.com", port=6432, created_at=datetime.now(UTC), new=True,
        postgres_major=17, loopback_only=False, addresses=None, sleep_after_s=0, direct=direct, superuser=superuser,
        ceiling=None if max_bytes is None else ceiling(max_bytes),
        parameters={}, authority_certificate=PEM, server_certificate=PEM, server_key=PEM,
    )  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / Place.INSTANCES).mkdir()
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def refused(root: int, request: wire.StartInstance, settings: Settings = SETTINGS, *, copied: bool = False) -> bool:
    try:
        allowances.require_allowed(root, request, settings, copied=copied)
    except HelperError as error:
        return error.code is ErrorCode.BAD_REQUEST
    return False


def test_new_data_have_a_ceiling_that_the_configuration_allows(root: int) -> None:
    assert not refused(root, start(2 * GIB))
    assert refused(root, start(2 * GIB + 1))
    assert refused(root, start(2**60))
    assert refused(root, start(None))
    # An instance from before ceilings existed.
    assert not refused(root, start(None), copied=True)


def test_without_a_configured_maximum_it_is_a_quarter_of_the_disk(root: int) -> None:
    found = os.fstatvfs(root)
    quarter = found.f_blocks * found.f_frsize // 4
    assert not refused(root, start(quarter), Settings())
    assert refused(root, start(quarter + 4096), Settings())


def test_an_instance_keeps_its_ceiling_when_a_lower_one_is_configured(root: int) -> None:
    made = start(2 * GIB)
    manifests.write(root, Place.INSTANCES, 4, made, manifests.Facts(any_role=True))
    lower = Settings(max_instance_bytes="1G")
    for _ in range(2):
        assert not refused(root, made, lower, copied=True)
        # The ceiling with its reserve is allowed, too. Refused requests have not raised it.
        allowances.require_ceiling(root, 4, ceiling(2 * GIB, extended=True), lower)
        with pytest.raises(HelperError):
            allowances.require_ceiling(root, 4, ceiling(2 * GIB + 1), lower)
        # A new owner does not change it.
        assign = wire.AssignInstance(
            instance_id=4, image_id=1, owner="bob@example.com", port=6432, created_at=made.created_at
        )
        manifests.assign(root, assign)
    with pytest.raises(HelperError):
        allowances.require_ceiling(root, 5, ceiling(2 * GIB), lower)


def test_a_direct_network_requires_the_operators_permission(root: int) -> None:
    direct, allowed = start(GIB, direct=True), Settings(max_instance_bytes="2G", direct_instances=True)
    assert refused(root, direct)
    assert not refused(root, direct, allowed)
    manifests.write(root, Place.INSTANCES, 4, start(GIB), manifests.Facts(any_role=True))
    assert refused(root, direct, copied=True)
    # An instance that was created when it was allowed continues; a new copy is refused.
    manifests.write(root, Place.INSTANCES, 4, direct, manifests.Facts(any_role=True))
    assert not refused(root, direct, copied=True)
    assert refused(root, direct)


def refuses_superuser(request: wire.StartInstance, settings: Settings, facts: manifests.Facts) -> bool:
    try:
        allowances.require_superuser(request, settings, facts)
    except HelperError as error:
        return error.code is ErrorCode.BAD_REQUEST
    return False


def test_a_superuser_requires_the_operators_permission_and_a_proved_image() -> None:
    request, allowed = start(GIB, superuser=True), Settings(allow_superuser=True)
    assert refuses_superuser(request, Settings(), manifests.Facts(proved=True))
    assert refuses_superuser(request, allowed, manifests.Facts())
    assert not refuses_superuser(request, allowed, manifests.Facts(proved=True))
    assert not refuses_superuser(start(GIB), Settings(), manifests.Facts())
    # An instance that has one already keeps it.
    assert not refuses_superuser(request, Settings(), manifests.Facts(superuser=True))


def test_the_image_s_proof_and_the_superuser_are_recorded_in_the_manifest(root: int, tmp_path: Path) -> None:
    made = manifests.Facts(any_role=True, proved=True, superuser=True)
    manifests.write(root, Place.INSTANCES, 4, start(GIB, superuser=True), made)
    assign = wire.AssignInstance(
        instance_id=4, image_id=1, owner="bob@example.com", port=6432, created_at=datetime.now(UTC)
    )
    manifests.assign(root, assign)
    found = manifests.read(root, 4)
    assert (found.proved, found.superuser) == (True, True)
    # Images of older versions are not proved.
    (tmp_path / Place.IMAGES).mkdir()
    (tmp_path / Place.IMAGES / "1.json").write_text('{"any_role": true}')
    assert not manifests.facts(root, 1).proved


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"ceiling": 5}', '{"ceiling": {"max_bytes": "2"}, "direct": 1}', "\xff"]
)
def test_a_manifest_that_cannot_be_read_allows_nothing(root: int, tmp_path: Path, text: str) -> None:
    (tmp_path / Place.INSTANCES / "4.json").write_text(text, encoding="latin-1")
    assert refused(root, start(3 * GIB), copied=True)
    assert refused(root, start(GIB, direct=True), copied=True)


def test_a_manifest_describes_its_image_or_instance(root: int, tmp_path: Path) -> None:
    manifests.write(root, Place.INSTANCES, 4, start(GIB), manifests.Facts(any_role=True))
    found = json.loads((tmp_path / Place.INSTANCES / "4.json").read_text())
    assert {name: found[name] for name in ("instance_id", "image_id", "owner", "port")} == {
        "instance_id": 4,
        "image_id": 1,
        "owner": "jane@example.com",
        "port": 6432,
    }
    assert PEM not in json.dumps(found)
