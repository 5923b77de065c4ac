"""Encrypts the authority keys of instances, and decrypts them only to issue a certificate.

Each key is encrypted for its row and its certificate, so it cannot be decrypted in another row.
"""

from __future__ import annotations

import logging

from draupnir import certificates
from draupnir.errors import EncryptionKeyMissing
from draupnir.identity import encryption
from draupnir.identity.encryption import CannotDecrypt, Cipher
from draupnir.models import Authority, Credentials, Instance, SealedAuthority
from draupnir.operations.context import Context

log = logging.getLogger(__name__)


def create(context: Context, instance_id: int) -> SealedAuthority:
    """Create an authority for an instance. Raises EncryptionKeyMissing."""
    return _seal(_cipher(context), instance_id, certificates.create_authority())


def opened(context: Context, instance: Instance) -> Authority:
    """Decrypt the authority of an instance. Raises EncryptionKeyMissing."""
    sealed = instance.authority
    if sealed.encrypted_key is None:
        raise EncryptionKeyMissing(
            f"The authority key of instance {instance.id} is not encrypted yet; run"
            " `systemctl restart draupnir`, and see `journalctl -u draupnir` if that does not help."
        )
    try:
        key = _cipher(context).decrypt(sealed.encrypted_key, _purpose(instance.id, sealed.certificate))
    except CannotDecrypt as error:
        raise EncryptionKeyMissing(
            f"The authority key of instance {instance.id} was encrypted with another key than the one in"
            f" {encryption.PATH}; ask the administrator to restore the former file and run"
            " `systemctl restart draupnir`, or destroy the instance."
        ) from error
    return Authority(sealed.certificate, key)


def issue_client(context: Context, instance: Instance, role: str = certificates.CLIENT_NAME) -> Credentials:
    """Issue new credentials for a role of an instance. Raises EncryptionKeyMissing."""
    return certificates.issue_client(opened(context, instance), role)


async def encrypt_plain(context: Context) -> None:
    """Encrypt the keys that an older version stored in plain text. Raises MetadataUnavailable."""
    cipher = context.cipher
    if cipher is None:
        log.error("%s Until then instances cannot be created or shown.", _missing().detail)
        return
    count = await context.store.instances.replace_plain_keys(
        lambda instance_id, authority: _seal(cipher, instance_id, authority)
    )
    if count:
        log.info("the authority keys of %s instances are encrypted from now on", count)


def _seal(cipher: Cipher, instance_id: int, authority: Authority) -> SealedAuthority:
    encrypted = cipher.encrypt(authority.key, _purpose(instance_id, authority.certificate))
    return SealedAuthority(authority.certificate, encrypted)


def _purpose(instance_id: int, certificate: str) -> str:
    """Return the owner for which a key is encrypted. It differs from e-mail addresses, which own refresh tokens."""
    return f"authority of instance {instance_id}\n{certificate}"


def _cipher(context: Context) -> Cipher:
    if context.cipher is None:
        raise _missing()
    return context.cipher


def _missing() -> EncryptionKeyMissing:
    return EncryptionKeyMissing(
        f"{encryption.PATH}, which encrypts the keys of instances, is missing or unusable; ask the administrator to"
        " run `draupnir doctor`."
    )
