"""Saves certificates and keys of instances, in one private directory for each role of each instance."""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from draupnir_client.errors import BadAnswer, ConfigError
from draupnir_client.files import instances_directory, make_private_directory, write_private
from draupnir_client.models import Credentials
from draupnir_client.urls import ServerURL


@dataclass(frozen=True, slots=True)
class CredentialFiles:
    """The paths of one role's files: PEM for libpq, the key in DER, and PKCS#12, which older servers do not return."""

    ca_certificate: Path
    client_certificate: Path
    client_key: Path
    client_key_der: Path
    client_pkcs12: Path


def files_in(folder: Path) -> CredentialFiles:
    """Return the paths of the files in a role's directory."""
    names = ("ca.crt", "client.crt", "client.key", "client.pk8", "client.p12")
    return CredentialFiles(*(folder / name for name in names))


def directory(url: ServerURL, instance_id: int) -> Path:
    """Return the directory of an instance's credentials. A digest of the url distinguishes servers with equal ids."""
    server = hashlib.sha256(str(url).encode()).hexdigest()[:16]
    return instances_directory() / server / str(instance_id)


def role_directory(url: ServerURL, instance_id: int, role: str) -> Path:
    """Return the directory of one role. A name with other characters is replaced by a digest.

    Some file systems do not distinguish App from app, and a role may have the name `../..`.
    """
    plain = re.fullmatch(r"[a-z0-9_]{1,63}", role)
    name = role if plain else f"role-{hashlib.sha256(os.fsencode(role)).hexdigest()[:32]}"
    return directory(url, instance_id) / name


def save(url: ServerURL, instance_id: int, role: str, credentials: Credentials) -> CredentialFiles:
    """Write the credentials of a role, replacing earlier ones, and return their paths."""
    key_der = _der(credentials.client_key)
    folder = role_directory(url, instance_id, role)
    for path in (*reversed(folder.parents[:4]), folder):
        make_private_directory(path)
    files = files_in(folder)
    # Two concurrent commands must not mix the certificate of one with the key of the other.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        write_private(files.ca_certificate, credentials.ca_certificate.encode())
        write_private(files.client_key, credentials.client_key.encode())
        write_private(files.client_key_der, key_der)
        write_private(files.client_certificate, credentials.client_certificate.encode())
        if credentials.client_pkcs12 is not None:
            write_private(files.client_pkcs12, credentials.client_pkcs12)
    finally:
        os.close(descriptor)
    return files


def remove(url: ServerURL, instance_id: int) -> None:
    """Remove the credentials of a destroyed instance."""
    folder = directory(url, instance_id)
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(
            f"Cannot remove the certificates in {folder}: {error.strerror}; remove them by hand."
        ) from error


def _der(pem: str) -> bytes:
    """Decode a private key in PKCS#8 (RFC 7468, section 10)."""
    found = re.search(r"-----BEGIN PRIVATE KEY-----\s([A-Za-z0-9+/=\s]+)-----END PRIVATE KEY-----", pem)
    with suppress(binascii.Error):
        if found and (key := base64.b64decode(found[1])):
            return key
    raise BadAnswer("The server's answer has no private key in PKCS#8; check the url.")
