"""An encrypted secret is readable only with its key and in its own row."""

from __future__ import annotations

from pathlib import Path

import pytest

from draupnir.identity.encryption import CREDENTIAL, CannotDecrypt, Cipher, KeyMissing, read_key

KEY = bytes(range(32))


def test_an_encrypted_secret_can_be_decrypted() -> None:
    cipher = Cipher(KEY)
    encrypted = cipher.encrypt("the refresh token", "jane@example.com")
    assert b"refresh" not in encrypted
    assert cipher.decrypt(encrypted, "jane@example.com") == "the refresh token"
    assert cipher.encrypt("the refresh token", "jane@example.com") != encrypted


def test_a_modified_secret_cannot_be_decrypted() -> None:
    encrypted = Cipher(KEY).encrypt("the refresh token", "jane@example.com")
    with pytest.raises(CannotDecrypt):
        Cipher(bytes(32)).decrypt(encrypted, "jane@example.com")
    with pytest.raises(CannotDecrypt):
        Cipher(KEY).decrypt(encrypted, "joe@example.com")
    for damaged in (b"", encrypted[:5], encrypted[:-1], encrypted[:-1] + bytes([encrypted[-1] ^ 1])):
        with pytest.raises(CannotDecrypt):
            Cipher(KEY).decrypt(damaged, "jane@example.com")


def test_the_key_is_the_credential_from_systemd(tmp_path: Path) -> None:
    with pytest.raises(KeyMissing, match="systemctl"):
        read_key(None)
    with pytest.raises(KeyMissing, match="refresh_token_key"):
        read_key(str(tmp_path))
    (tmp_path / CREDENTIAL).write_bytes(b" ")
    with pytest.raises(KeyMissing, match="draupnir-setup"):
        read_key(str(tmp_path))
    (tmp_path / CREDENTIAL).write_bytes(b"short")
    with pytest.raises(KeyMissing, match="5 bytes"):
        read_key(str(tmp_path))
    (tmp_path / CREDENTIAL).write_bytes(KEY)
    assert read_key(str(tmp_path)) == KEY
