"""The secret that the identity provider gave to this server: where it lies, how it is read, what makes it unfit."""

from __future__ import annotations

from pathlib import Path

CREDENTIAL = "oidc_client_secret"
PATH = Path("/etc/draupnir") / CREDENTIAL


class ClientSecretError(Exception):
    """There is no usable client secret; the message says what to do, and holds none of it."""


def read(directory: str | None) -> str:
    """The secret from the directory of credentials ($CREDENTIALS_DIRECTORY); raises ClientSecretError."""
    if directory is None:
        raise ClientSecretError("systemd passed no credentials; start the service with `systemctl start draupnir`.")
    try:
        return parse((Path(directory) / CREDENTIAL).read_bytes())
    except OSError as error:
        raise ClientSecretError(
            f"The credential {CREDENTIAL} cannot be read ({error.strerror}); see {PATH}."
        ) from error


def parse(content: bytes) -> str:
    """The secret without the white space around it; raises ClientSecretError."""
    secret = content.strip()
    if not secret:
        raise ClientSecretError(
            f"The configuration has an [oidc] and {PATH} is missing or empty; save the client secret from the"
            " identity provider gave you, owned by root with mode 0600, or remove [oidc]."
        )
    if any(byte <= 0x20 or byte >= 0x7F for byte in secret):
        raise ClientSecretError(f"{PATH} has more than one line of ASCII; it must contain only the client secret.")
    return secret.decode()
