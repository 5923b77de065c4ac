"""Checks settings of Postgres for images and instances: whether the operator allows them, and whether a server starts.

In the finalise job a server checks the settings of an image. No server checks those of an instance before its start.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable, Mapping

from draupnir.errors import SettingRefused
from draupnir.models import Image, Instance
from draupnir.operations.context import Context
from draupnir_helper import wire

_LOCALES = {"C", "POSIX", "C.UTF-8"}


def allowed(context: Context, parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that the operator allows."""
    return {name: value for name, value in parameters.items() if _is_allowed(context, name)}


def of_instance(instance: Instance) -> dict[str, str]:
    """Return the settings of an instance, without those that this version no longer knows."""
    return {name: value for name, value in instance.parameters.items() if wire.fault(name, value) is None}


def require_allowed(context: Context, names: Iterable[str]) -> None:
    """Raise SettingRefused for a setting that the operator does not allow."""
    for name in names:
        if not _is_allowed(context, name):
            raise SettingRefused(
                f"The operator does not allow the setting {name}; omit it, or ask the operator to add it to"
                " allowed_settings in /etc/draupnir/config.toml."
            )


def require_startable(image: Image, parameters: Mapping[str, str]) -> None:
    """Raise SettingRefused for a setting with which Postgres would not start on the image."""
    major = image.postgres_major or 0
    unknown = parameters.keys() - wire.applicable(major, parameters).keys()
    for name in sorted(unknown):
        raise SettingRefused(f"Postgres {major} of image {image.id} does not know the setting {name}; omit it.")
    known_locales = _LOCALES | {value for name, value in image.parameters.items() if _is_locale(name)}
    for name, value in parameters.items():
        if name == "timezone" and value not in zoneinfo.available_timezones():
            raise SettingRefused(f"The server does not know the time zone {value}; use one such as Europe/Berlin.")
        if _is_locale(name) and value not in known_locales:
            raise SettingRefused(
                f"{name} of an instance can be {', '.join(sorted(known_locales))}, and not {value}; the operator can"
                " set another one for the image."
            )


def _is_allowed(context: Context, name: str) -> bool:
    return not context.settings.allowed_settings.isdisjoint({name, wire.PARAMETERS[name].group})


def _is_locale(name: str) -> bool:
    return wire.PARAMETERS[name].group == "locale"
