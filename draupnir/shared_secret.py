"""Reads and validates the shared secret of the service."""

from __future__ import annotations

from pathlib import Path

PATH = Path("/etc/draupnir/shared_secret")
MIN_BYTES = 32


class SecretError(Exception):
    """The secret is unusable. The message says why and what to do."""


def read(path: Path) -> bytes:
    """Read the secret without surrounding white space. Raises SecretError, whose text never quotes the secret."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SecretError(
            f"{path} cannot be read ({error.strerror}); `systemctl restart draupnir-setup` creates it if it is missing."
        ) from error
    if len(secret) < MIN_BYTES:
        raise SecretError(
            f"{path} has {len(secret)} bytes and must have at least {MIN_BYTES}; "
            "remove it and run `systemctl restart draupnir-setup` to create a new one."
        )
    if any(byte <= 0x20 or byte >= 0x7F for byte in secret):
        raise SecretError(f"{path} has bytes that are invalid in an HTTP header; write one line of plain ASCII to it.")
    return secret
