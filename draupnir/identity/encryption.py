"""Encrypts secrets in the metadata: AES-256-GCM under a key that systemd hands to the daemon alone.

The secrets are the refresh tokens of people and the authority keys of instances. The file with the key has its name
from the first of the two.
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
    """There is no usable key; the message says what to do."""


class CannotDecrypt(Exception):
    """It was encrypted under another key or for another owner, or was tampered with."""


class Cipher:
    """Encrypts texts under one key, each for its owner (a person, a row): it can be decrypted for no other."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def encrypt(self, text: str, owner: str) -> bytes:
        """A fresh random nonce, and the text encrypted under it."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, text.encode(), owner.encode())

    def decrypt(self, encrypted: bytes, owner: str) -> str:
        """The text again; raises CannotDecrypt."""
        try:
            return self._aead.decrypt(encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:], owner.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise CannotDecrypt from error


def read_key(directory: str | None) -> bytes:
    """The key from the directory of credentials ($CREDENTIALS_DIRECTORY); raises KeyMissing."""
    if directory is None:
        raise KeyMissing("systemd passed no credentials; start the service with `systemctl start draupnir`.")
    try:
        return check_key((Path(directory) / CREDENTIAL).read_bytes())
    except OSError as error:
        raise KeyMissing(f"The credential {CREDENTIAL} cannot be read ({error.strerror}); see {PATH}.") from error


def check_key(key: bytes) -> bytes:
    """The same key, if it is one; raises KeyMissing."""
    if not key.strip():
        raise KeyMissing(
            f"{PATH} is missing or empty; restore the former file. If there never was one, remove it and run"
            " `systemctl restart draupnir-setup`, which creates one."
        )
    if len(key) != KEY_BYTES:
        raise KeyMissing(
            f"{PATH} holds {len(key)} bytes and has to hold {KEY_BYTES}; restore the former file. If it is lost,"
            " remove this one, run `systemctl restart draupnir-setup` to make a new one, and destroy the instances"
            " there are; everybody has to sign in again."
        )
    return key
