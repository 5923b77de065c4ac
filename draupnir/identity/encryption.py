"""Encrypts secrets in the metadata: AES-256-GCM with a key that systemd passes only to the daemon.

The secrets are the refresh tokens of users and the authority keys of instances. The key file is named after the first.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CREDENTIAL = "refresh_token_key"
PATH = Path("/etc/draupnir") / CREDENTIAL
KEY_BYTES = 32
_NONCE_BYTES = 12


class KeyMissing(Exception):
    """The key is missing or unusable. The message says what to do."""


class CannotDecrypt(Exception):
    """The text was encrypted with another key or for another owner, or was modified."""


class Cipher:
    """Encrypts texts with one key, each for an owner (a user, a row). Decryption needs the same owner."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def encrypt(self, text: str, owner: str) -> bytes:
        """Return a random nonce, followed by the encrypted text."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, text.encode(), owner.encode())

    def decrypt(self, encrypted: bytes, owner: str) -> str:
        """Return the text. Raises CannotDecrypt."""
        try:
            return self._aead.decrypt(encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:], owner.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise CannotDecrypt from error


def read_key(directory: str | None) -> bytes:
    """Read the key from the credentials directory ($CREDENTIALS_DIRECTORY). Raises KeyMissing."""
    if directory is None:
        raise KeyMissing("systemd passed no credentials; start the service with `systemctl start draupnir`.")
    try:
        return check_key((Path(directory) / CREDENTIAL).read_bytes())
    except OSError as error:
        raise KeyMissing(f"The credential {CREDENTIAL} cannot be read ({error.strerror}); see {PATH}.") from error


def check_key(key: bytes) -> bytes:
    """Return the key if it is valid. Raises KeyMissing."""
    if not key.strip():
        raise KeyMissing(
            f"{PATH} is missing or empty; restore the former file. If the file never existed, run"
            " `systemctl restart draupnir-setup`, which creates it; remove an empty file before."
        )
    if len(key) != KEY_BYTES:
        raise KeyMissing(
            f"{PATH} has {len(key)} bytes and must have {KEY_BYTES}; restore the former file. If it is lost,"
            " remove this one, run `systemctl restart draupnir-setup` to create a new one, and destroy all existing"
            " instances; all users have to sign in again."
        )
    return key
