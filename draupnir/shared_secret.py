"""The shared secret of the service: where it lies, how it is read, and what makes it unfit."""

from __future__ import annotations

from pathlib import Path

PATH = Path("/etc/draupnir/shared_secret")
MIN_BYTES = 32


class SecretError(Exception):
    """The secret cannot be used; the message says why and what to do."""


def read(path: Path) -> bytes:
    """The secret without the white space around it; raises SecretError, whose text never holds any of it."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SecretError(
            f"{path} cannot be read ({error.strerror}); `systemctl restart draupnir-setup` creates it if it is missing."
        ) from error
    if len(secret) < MIN_BYTES:
        raise SecretError(
            f"{path} holds {len(secret)} bytes and at least {MIN_BYTES} are needed; "
            "remove it and run `systemctl restart draupnir-setup` to have a new one made."
        )
    if any(byte <= 0x20 or byte >= 0x7F for byte in secret):
        raise SecretError(f"{path} has bytes that are invalid in an HTTP header; write one line of plain ASCII to it.")
    return secret
