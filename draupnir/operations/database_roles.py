"""Checks as which Postgres role a user may sign in: any role except the superuser and reserved names."""

from __future__ import annotations

import re

from draupnir import certificates
from draupnir.errors import RoleRefused

DEFAULT = certificates.CLIENT_NAME
# finalise puts the superuser into this group, and pg_hba.conf rejects its members.
SUPERUSERS = "draupnir_superusers"
MAX_NAME_BYTES = 63


def allowed(role: str | None, image_id: int, superuser: str | None) -> str:
    """Return the role, or draupnir if none is given. `superuser` is the image's superuser. Raises RoleRefused.

    Postgres checks whether the role exists, because users also create roles in the instance.
    """
    if role is None or role == DEFAULT:
        return DEFAULT
    if superuser is None:
        raise RoleRefused(
            f"Image {image_id} was finalised by an older version of Draupnir, so only the role {DEFAULT} can sign in to"
            " its instances; create a new image from the backup."
        )
    if role == superuser:
        raise RoleRefused(f"{_shown(role)} is the superuser of the data, which cannot sign in; sign in as {DEFAULT}.")
    if role.startswith("pg_") or role == SUPERUSERS:
        raise RoleRefused(f"{_shown(role)} is a reserved name; sign in as {DEFAULT} or as a role of the data.")
    if re.search(r"[\ud800-\udfff\ufffd]", role):
        raise RoleRefused(
            "The name of the role is not UTF-8, and a certificate cannot carry other encodings; sign in as"
            f" {DEFAULT} and use SET ROLE."
        )
    if not role or len(role.encode()) > MAX_NAME_BYTES or re.search(r"[\x00-\x1f\x7f]", role):
        raise RoleRefused(
            f"{_shown(role)} is not a valid name of a role: names have 1 to {MAX_NAME_BYTES} bytes and no control"
            f" characters; sign in as {DEFAULT} and use SET ROLE."
        )
    return role


def _shown(role: str) -> str:
    return repr(role if len(role) <= MAX_NAME_BYTES else f"{role[:MAX_NAME_BYTES]}…")
