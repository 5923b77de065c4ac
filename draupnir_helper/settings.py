"""The keys of /etc/draupnir/config.toml that root uses; the file belongs to root, and the daemon reads it, too."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_UNITS = {"M": 20, "G": 30, "T": 40}
Size = Annotated[str, Field(pattern=r"^[0-9]{1,6}[MGT]$")]
LibraryName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,63}$")]

CONFIG_PATH = Path("/etc/draupnir/config.toml")


class Settings(BaseModel):
    """The keys of the configuration file. Other keys are ignored here, because the daemon refuses unknown ones."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    data_path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]+$")] = "/srv/draupnir"
    data_device: Annotated[str, Field(pattern=r"^/dev/[A-Za-z0-9._/:+-]+$")] | None = None
    data_disk_size: Size | None = None
    max_instance_bytes: Size | None = None
    max_image_bytes: Size | None = None
    min_instance_port: Annotated[int, Field(ge=1024, le=65535)] = 6432
    max_instance_port: Annotated[int, Field(ge=1024, le=65536)] = 8432
    direct_instances: bool = False
    allow_superuser: bool = False
    trusted_extensions: list[LibraryName] = []
    shared_preload_libraries: list[LibraryName] = []
    allowed_preload_libraries: list[LibraryName] = ["pg_stat_statements", "pgaudit"]
    require_extensions: bool = False
    allow_residue: bool = False


def bytes_of(size: str) -> int:
    """Parse a size such as 20G to bytes."""
    return int(size[:-1]) << _UNITS[size[-1]]


def load(path: Path = CONFIG_PATH) -> Settings:
    """Read the file, or return the defaults without one. Raises OSError, TOMLDecodeError or ValidationError."""
    if not path.exists():
        return Settings()
    with path.open("rb") as file:
        return Settings.model_validate(tomllib.load(file))
