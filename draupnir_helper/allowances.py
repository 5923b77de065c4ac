"""Checks the daemon's requests against the configuration; an existing instance keeps the limits it was created with."""

from __future__ import annotations

from draupnir_helper import manifests, storage
from draupnir_helper.errors import HelperError
from draupnir_helper.settings import Settings
from draupnir_helper.wire import Ceiling, ErrorCode, StartInstance


def require_allowed(root: int, request: StartInstance, settings: Settings, *, copied: bool) -> None:
    """Raise BAD_REQUEST if new data have no ceiling, or if the ceiling or the network is not allowed."""
    if request.ceiling is not None:
        require_ceiling(root, request.instance_id, request.ceiling, settings)
    elif not copied:
        raise HelperError(ErrorCode.BAD_REQUEST, "A new instance must have a ceiling.")
    if request.direct and not settings.direct_instances:
        made = manifests.read(root, request.instance_id) if copied else manifests.Instance()
        if not made.direct:
            detail = "direct_instances is off in the server's configuration, and the instance is not direct."
            raise HelperError(ErrorCode.BAD_REQUEST, detail)


def require_superuser(request: StartInstance, settings: Settings, facts: manifests.Facts) -> None:
    """Raise BAD_REQUEST if the instance is to get a superuser, and the configuration or the image forbids it."""
    if not request.superuser or facts.superuser:
        return
    if not settings.allow_superuser:
        raise HelperError(ErrorCode.BAD_REQUEST, "allow_superuser is off in the server's configuration.")
    if not facts.proved:
        detail = "The files of the image are not proved to have no value that the script removed."
        raise HelperError(ErrorCode.BAD_REQUEST, detail)


def require_ceiling(root: int, instance_id: int, ceiling: Ceiling, settings: Settings) -> None:
    """Raise BAD_REQUEST if the ceiling is above both the configured maximum and the instance's current ceiling."""
    highest_bytes = storage.max_instance_bytes(storage.size_bytes(root), settings)
    if ceiling.max_bytes <= highest_bytes:
        return
    made = manifests.read(root, instance_id)
    if made.ceiling is None or ceiling.max_bytes > made.ceiling.max_bytes:
        detail = f"The server's configuration limits an instance to {highest_bytes} bytes."
        raise HelperError(ErrorCode.BAD_REQUEST, detail)
