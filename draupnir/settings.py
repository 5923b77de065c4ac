"""The administrator's configuration file as one frozen value. An error names the line and what to do."""

from __future__ import annotations

import ipaddress
import re
import socket
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from draupnir import toml_errors
from draupnir.addresses import Cidr, read_cidr
from draupnir.identity import emails
from draupnir_helper import wire

CONFIG_PATH = Path("/etc/draupnir/config.toml")
PRIVATE_DSN = "host=/run/draupnir-metadata dbname=draupnir user=draupnir"
CALLBACK_PATH = "/oauth_callback"
# Postgres itself needs this much; draupnir_helper/wire/instances.py has it in bytes.
SMALLEST_MIB = 64
DISCOVERY_PATH = "/.well-known/openid-configuration"


def _cidr(value: object) -> Cidr:
    try:
        return read_cidr(str(value))
    except ValueError as error:
        raise PydanticCustomError(
            "cidr", "has to be a network such as '10.0.0.0/8' ({reason})", {"reason": str(error)}
        ) from None


def _email(value: object) -> str:
    if isinstance(value, str) and emails.PATTERN.fullmatch(value):
        return value.lower()
    raise PydanticCustomError("email", "has to be an e-mail address such as 'jane@example.com'")


def _duration(value: object) -> timedelta:
    """Parse the duration format of the Go program, such as "30m" or "1h30m". A number is in seconds."""
    if isinstance(value, timedelta):
        return value
    seconds = 0
    if isinstance(value, str) and (parts := re.fullmatch(_DURATION, value, re.ASCII)):
        seconds = sum(int(digits or 0) * unit_s for digits, unit_s in zip(parts.groups(), _UNITS_S, strict=True))
    elif isinstance(value, int) and not isinstance(value, bool):
        seconds = value
    if not 0 < seconds <= _LONGEST_S:
        raise PydanticCustomError("duration", "has to be a time such as '30m', '24h' or '1h30m', at most a year")
    return timedelta(seconds=seconds)


def _size(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,5}[MGT]", value):
        return value
    raise PydanticCustomError("size", "has to be a size such as '20G', with the suffix M, G or T and without a space")


def _setting(value: object) -> str:
    if isinstance(value, str) and value in {*wire.GROUPS, *wire.PARAMETERS}:
        return value
    raise PydanticCustomError(
        "setting", "has to be a group ({groups}) or a setting of one", {"groups": ", ".join(wire.GROUPS)}
    )


_DURATION = r"(?:(\d{1,5})d)?(?:(\d{1,8})h)?(?:(\d{1,8})m)?(?:(\d{1,8})s)?"
_UNITS_S = (24 * 3600, 3600, 60, 1)
_LONGEST_S = 366 * 24 * 3600

Size = Annotated[str, BeforeValidator(_size)]
LibraryName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,63}$")]
SettingName = Annotated[str, BeforeValidator(_setting)]
CidrText = Annotated[Cidr, BeforeValidator(_cidr)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
EmailAddress = Annotated[str, BeforeValidator(_email)]


class SettingsError(Exception):
    """The configuration is invalid. The text names the file, the line and what to do."""


class Section(BaseModel):
    """Base of the file's tables: frozen, strict types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class HttpSettings(Section):
    """The extra HTTPS listener. Its three keys are given together or not at all."""

    listen_address: Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]*):[0-9]{1,5}$")] | None = None
    tls_certificate: Annotated[Path, Field(strict=False)] | None = None
    tls_private_key: Annotated[Path, Field(strict=False)] | None = None

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        given = [name for name in HttpSettings.model_fields if getattr(self, name) is not None]
        missing = [name for name in HttpSettings.model_fields if name not in given]
        if given and missing:
            raise PydanticCustomError(
                "incomplete", "also needs {missing}", {"missing": " and ".join(missing), "keys": given}
            )
        return self


class OidcSettings(Section):
    """The OpenID Connect provider, and our client registration with it."""

    discovery_url: str = "https://accounts.google.com/.well-known/openid-configuration"
    client_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]+$")]
    redirect_url: str | None = None

    @field_validator("discovery_url")
    @classmethod
    def _discoverable(cls, url: str) -> str:
        if not is_private(url) or not url.endswith(DISCOVERY_PATH):
            raise PydanticCustomError("url", f"has to be an https:// address that ends in {DISCOVERY_PATH}")
        return url

    @field_validator("redirect_url")
    @classmethod
    def _called_back(cls, url: str) -> str:
        if not is_private(url) or not url.endswith(CALLBACK_PATH):
            raise PydanticCustomError("url", f"has to be this server's https:// address with {CALLBACK_PATH}")
        return url


def is_private(url: str) -> bool:
    """Return whether connections to the url are private: https, or http to this machine."""
    return (
        re.fullmatch(
            r"(https://[A-Za-z0-9.-]+|http://(127\.0\.0\.1|localhost|\[::1\]))(:[0-9]{1,5})?(/\S*)?", url, re.ASCII
        )
        is not None
    )


class Settings(Section):
    """Every key of the file, with its default; `public_hostname` defaults to the machine's fully qualified name."""

    data_path: Annotated[Path, Field(strict=False)] = Path("/srv/draupnir")
    data_device: Annotated[str, Field(pattern=r"^/dev/[A-Za-z0-9._/:+-]+$")] | None = None
    data_disk_size: Size | None = None
    max_instance_bytes: Size | None = None
    max_image_bytes: Size | None = None
    database_url: Annotated[str, Field(min_length=1)] | None = None
    public_hostname: str = Field(default_factory=socket.getfqdn)
    min_instance_port: Annotated[int, Field(ge=1024, le=65535)] = 6432
    max_instance_port: Annotated[int, Field(ge=1024, le=65536)] = 8432
    trusted_extensions: Annotated[tuple[LibraryName, ...], Field(strict=False)] = ()
    shared_preload_libraries: Annotated[tuple[LibraryName, ...], Field(strict=False)] = ()
    allowed_preload_libraries: Annotated[tuple[LibraryName, ...], Field(strict=False)] = (
        "pg_stat_statements",
        "pgaudit",
    )
    require_extensions: bool = False
    allow_residue: bool = False
    sleep_after_s: Annotated[int, Field(ge=0, le=30 * 24 * 3600)] = 1800
    pool_size: Annotated[int, Field(ge=0, le=100)] = 2
    pool_images: Annotated[int, Field(ge=0, le=100)] = 1
    pool_awake: bool = True
    max_instances_per_user: Annotated[int, Field(ge=1, le=65535)] = 20
    direct_instances: bool = False
    allow_superuser: bool = False
    allowed_settings: Annotated[frozenset[SettingName], Field(strict=False)] = frozenset(wire.GROUPS)
    enable_ip_whitelisting: bool = False
    whitelist_ttl_s: Annotated[int, Field(ge=60, le=365 * 24 * 3600)] = 24 * 3600
    clean_interval: Duration = timedelta(minutes=30)
    grace_period: Duration = timedelta(hours=24)
    use_x_forwarded_for: bool = False
    trusted_proxy_cidrs: Annotated[tuple[CidrText, ...], Field(strict=False)] = ()
    trusted_user_email_domain: Annotated[str, Field(pattern=r"^@[A-Za-z0-9.-]{1,189}$")] | None = None
    admins: Annotated[frozenset[EmailAddress], Field(strict=False)] = frozenset()
    session_lifetime_s: Annotated[int, Field(ge=300, le=366 * 24 * 3600)] = 30 * 24 * 3600
    http: HttpSettings = HttpSettings()
    oidc: OidcSettings | None = None

    @property
    def redirect_url(self) -> str:
        """Return the url to which the identity provider redirects browsers. This needs an [oidc] section."""
        assert self.oidc is not None
        port = (self.http.listen_address or "").rpartition(":")[2]
        return self.oidc.redirect_url or f"https://{self.public_hostname}:{port}{CALLBACK_PATH}"

    @property
    def public_url(self) -> str:
        """Return the url of this server for browsers, without a trailing slash. This needs an [oidc] section."""
        return self.redirect_url.removesuffix(CALLBACK_PATH)

    def trusts(self, email: str) -> bool:
        """Return whether the domain of the e-mail address is exactly the trusted one."""
        domain = self.trusted_user_email_domain
        return domain is not None and "@" + email.lower().partition("@")[2] == domain.lower()

    def instance_limit(self, owner: str) -> int | None:
        """Return the limit of instances of an owner, or None for the shared secret's bearer unless the key is set."""
        is_person = "@" in owner
        return self.max_instances_per_user if is_person or "max_instances_per_user" in self.model_fields_set else None

    @property
    def dsn(self) -> str:
        """Return the dsn of the metadata: the configured database, or the private cluster."""
        return self.database_url or PRIVATE_DSN

    @property
    def instance_ports(self) -> range:
        """Return the ports for instances, without `max_instance_port`."""
        return range(self.min_instance_port, self.max_instance_port)

    @field_validator("data_path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not re.fullmatch(r"/[A-Za-z0-9._/-]+", str(path)):
            raise PydanticCustomError("path", "has to be an absolute path of letters, digits, dots, _, - and /")
        return path

    @field_validator("max_instance_bytes", "max_image_bytes")
    @classmethod
    def _enough(cls, size: str | None) -> str | None:
        if size is not None and size.endswith("M") and int(size[:-1]) < SMALLEST_MIB:
            raise PydanticCustomError("size", f"has to be {SMALLEST_MIB}M or more")
        return size

    @field_validator("public_hostname")
    @classmethod
    def _name_or_address(cls, name: str) -> str:
        if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", name):
            return name
        try:
            return str(ipaddress.ip_address(name))
        except ValueError:
            raise PydanticCustomError("hostname", "has to be a host name or an IP address") from None

    @model_validator(mode="after")
    def _somebody_to_believe(self) -> Self:
        if self.use_x_forwarded_for and not self.trusted_proxy_cidrs:
            raise PydanticCustomError("incomplete", "also needs trusted_proxy_cidrs", {"keys": ["use_x_forwarded_for"]})
        return self

    @model_validator(mode="after")
    def _sign_in_complete(self) -> Self:
        missing = []
        if self.oidc is not None and self.trusted_user_email_domain is None:
            missing.append("trusted_user_email_domain")
        if self.oidc is not None and self.oidc.redirect_url is None and self.http.listen_address is None:
            missing.append("redirect_url (or [http] listen_address)")
        if missing:
            raise PydanticCustomError(
                "incomplete", "also needs {missing}", {"missing": " and ".join(missing), "keys": ["oidc"]}
            )
        return self

    @model_validator(mode="after")
    def _ports_in_order(self) -> Self:
        if self.min_instance_port >= self.max_instance_port:
            raise PydanticCustomError(
                "upside_down",
                "leave no port: min_instance_port ({low}) has to be lower than max_instance_port ({high})",
                {
                    "low": self.min_instance_port,
                    "high": self.max_instance_port,
                    "keys": ["min_instance_port", "max_instance_port"],
                },
            )
        return self


def load(path: Path = CONFIG_PATH) -> Settings:
    """Read the file, or return the defaults if it does not exist. Raises SettingsError."""
    try:
        text = path.read_bytes().decode()
        return Settings.model_validate(tomllib.loads(text))
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}:{line}: the file is not UTF-8 text; save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(toml_errors.malformed(path, str(error))) from error
    except ValidationError as error:
        raise SettingsError("\n".join(toml_errors.explain(path, text, each) for each in error.errors())) from error
