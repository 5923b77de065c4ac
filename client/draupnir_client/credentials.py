"""Certificates and keys of instances, in one private directory for each instance."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from draupnir_client.errors import ConfigError
from draupnir_client.files import base_directory, make_private_directory, write_private
from draupnir_client.models import Credentials
from draupnir_client.urls import ServerURL


@dataclass(frozen=True, slots=True)
class CredentialFiles:
    """The paths of the three files for libpq."""

    ca_certificate: Path
    client_certificate: Path
    client_key: Path


def directory(url: ServerURL, instance_id: int) -> Path:
    """Return the directory of an instance's credentials; a digest of the url distinguishes servers with equal ids."""
    server = hashlib.sha256(str(url).encode()).hexdigest()[:16]
    return base_directory("XDG_CACHE_HOME", ".cache") / "draupnir" / "instances" / server / str(instance_id)


def save(url: ServerURL, instance_id: int, credentials: Credentials) -> CredentialFiles:
    """Write the credentials, replacing earlier ones, and return their paths."""
    folder = directory(url, instance_id)
    for path in (folder.parents[2], folder.parents[1], folder.parent, folder):
        make_private_directory(path)
    files = CredentialFiles(folder / "ca.crt", folder / "client.crt", folder / "client.key")
    # Two concurrent commands must not mix the certificate of one with the key of the other.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        write_private(files.ca_certificate, credentials.ca_certificate)
        write_private(files.client_key, credentials.client_key)
        write_private(files.client_certificate, credentials.client_certificate)
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
