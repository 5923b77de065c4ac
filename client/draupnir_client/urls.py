"""Parses the url of a server, and decides whether a secret may be sent to it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from draupnir_client.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ServerURL:
    """A checked url: scheme http or https, lower-case host without brackets, port, and a path without a last slash."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Return the parts that are equal if two urls are on the same server."""
        return self.scheme, self.host, self.port

    @property
    def is_loopback(self) -> bool:
        """Return whether the address is a loopback address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_private(self) -> bool:
        """Return whether the connection is encrypted or stays on this machine."""
        return self.scheme == "https" or self.is_loopback

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _standard_port(self.scheme) else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


def parse_url(text: str) -> ServerURL:
    """Parse a server's url. Raises ConfigError."""
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ConfigError(f"The url {text!r} is empty or has blanks or unusual characters; correct it.")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"The url {text} cannot be read ({error}); write it like https://my-draupnir.tld.") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(
            f"The url {text} lacks http:// or https://, or a host; write it like https://my-draupnir.tld."
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            "The url has a user name, a query or a fragment in it; leave only scheme, host, port and path."
        )
    # A host that starts with a dash would be an option to ssh.
    if not re.fullmatch(r"[a-z0-9_.:][a-z0-9_.:-]*", host):
        raise ConfigError(f"The url {text} has no valid host name; write it like https://my-draupnir.tld.")
    return ServerURL(parts.scheme, host, port or _standard_port(parts.scheme), parts.path.rstrip("/"))


def _standard_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80
