"""Reads and validates the client secret from the identity provider."""

from __future__ import annotations

from pathlib import Path

CREDENTIAL = "oidc_client_secret"
PATH = Path("/etc/draupnir") / CREDENTIAL


class ClientSecretError(Exception):
    """The client secret is missing or unusable. The message says what to do, and does not quote the secret."""


def read(directory: str | None) -> str:
    """Read the secret from the credentials directory ($CREDENTIALS_DIRECTORY). Raises ClientSecretError."""
    if directory is None:
        raise ClientSecretError("systemd passed no credentials; start the service with `systemctl start draupnir`.")
    try:
        return parse((Path(directory) / CREDENTIAL).read_bytes())
    except OSError as error:
        raise ClientSecretError(
            f"The credential {CREDENTIAL} cannot be read ({error.strerror}); see {PATH}."
        ) from error


def parse(content: bytes) -> str:
    """Return the secret without surrounding white space. Raises ClientSecretError."""
    secret = content.strip()
    if not secret:
        raise ClientSecretError(
            f"The configuration has an [oidc] section, but {PATH} is missing or empty; save the client secret from the"
            " identity provider there, owned by root with mode 0600, or remove [oidc]."
        )
    if any(byte <= 0x20 or byte >= 0x7F for byte in secret):
        raise ClientSecretError(f"{PATH} has more than one line of ASCII; it must contain only the client secret.")
    return secret.decode()
