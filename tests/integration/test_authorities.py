"""Authority keys are encrypted in the metadata, each for its own row; those of older versions get encrypted."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import psycopg
import pytest
from cryptography import x509

from draupnir import certificates
from draupnir.errors import EncryptionKeyMissing
from draupnir.identity.encryption import Cipher
from draupnir.models import ImageStatus
from draupnir.operations import authorities, instances
from draupnir.operations.context import Context
from draupnir.store import Store, migrate
from tests.daemon import CALLER, ready_image
from tests.postgres import Cluster, binaries

pytestmark = pytest.mark.anyio


def dump(dsn: str) -> str:
    """Return a dump of the metadata."""
    done = subprocess.run([binaries() / "pg_dump", "--inserts", dsn], capture_output=True, text=True, check=True)
    return done.stdout


async def test_a_dump_of_the_metadata_has_no_key_of_an_authority(context: Context) -> None:
    image = await ready_image(context)
    instance, _ = await instances.create(context, CALLER, image.id)
    told = dump(context.settings.dsn)
    assert instance.authority.certificate in told
    assert "PRIVATE KEY" not in told


async def test_a_key_can_be_decrypted_only_for_its_row_and_certificate(context: Context) -> None:
    image = await ready_image(context)
    mine, _ = await instances.create(context, CALLER, image.id)
    other, _ = await instances.create(context, CALLER, image.id)
    stranger = certificates.create_authority().certificate
    for forged in (
        dataclasses.replace(other, authority=mine.authority),
        dataclasses.replace(mine, authority=dataclasses.replace(mine.authority, certificate=stranger)),
    ):
        with pytest.raises(EncryptionKeyMissing, match="another key"):
            authorities.issue_client(context, forged)


async def test_without_the_key_no_instance_is_created_and_the_error_has_advice(context: Context) -> None:
    image = await ready_image(context)
    keyless = dataclasses.replace(context, cipher=None)
    with pytest.raises(EncryptionKeyMissing, match=r"/etc/draupnir/refresh_token_key.*draupnir doctor"):
        await instances.create(keyless, CALLER, image.id)
    assert await context.store.instances.list_all() == []


async def test_another_key_is_reported_and_destroys_nothing(context: Context) -> None:
    image = await ready_image(context)
    instance, _ = await instances.create(context, CALLER, image.id)
    replaced = dataclasses.replace(context, cipher=Cipher(bytes(32)))
    with pytest.raises(EncryptionKeyMissing, match="restore the former file"):
        await instances.get(replaced, CALLER, instance.id)
    assert await instances.list_own(replaced, CALLER) == [instance]
    assert (await instances.get(context, CALLER, instance.id))[1] is not None
    await instances.destroy(replaced, CALLER, instance.id)


async def test_keys_in_plain_text_are_encrypted_at_the_start(
    context: Context, empty_dsn: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = migrate.migrations()
    monkeypatch.setattr(migrate, "migrations", lambda: {number: sql for number, sql in whole.items() if number < 7})
    old = Store(empty_dsn)
    await old.open()
    await old.close()
    made = [certificates.create_authority() for _ in range(3)]
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO images (status, backed_up_at, anonymisation_script, postgres_major)"
            " VALUES (%s, now(), '', 15)",
            [ImageStatus.READY],
        )
        for number, authority in enumerate(made, start=1):
            connection.execute(
                "INSERT INTO instances (id, image_id, owner, purpose, status, port, sleep_after_s, network,"
                " authority_certificate, authority_key) VALUES (%s, 1, 'upload', 'use', 'running', %s, 0, 'proxied',"
                " %s, %s)",
                [number, 2000 + number, authority.certificate, authority.key],
            )
    monkeypatch.setattr(migrate, "migrations", lambda: whole)
    upgraded = dataclasses.replace(context, store=Store(empty_dsn))
    await upgraded.store.open()
    # Without the encryption key they stay in plain text, and no certificate is issued.
    await authorities.encrypt_plain(dataclasses.replace(upgraded, cipher=None))
    for instance in await upgraded.store.instances.list_all():
        with pytest.raises(EncryptionKeyMissing, match="not encrypted yet"):
            authorities.issue_client(upgraded, instance)
    for _ in range(2):
        await authorities.encrypt_plain(upgraded)
    for instance, authority in zip(await upgraded.store.instances.list_all(), made, strict=True):
        issued = authorities.issue_client(upgraded, instance)
        client = x509.load_pem_x509_certificate(issued.client_certificate.encode())
        client.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate.encode()))
    await upgraded.store.close()
    assert "PRIVATE KEY" not in dump(empty_dsn)
    assert b"PRIVATE KEY" not in table_file(cluster, empty_dsn)


def table_file(cluster: Cluster, dsn: str) -> bytes:
    """Return the bytes of the table's file."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        row = connection.execute(
            "SELECT pg_relation_filepath('instances'), pg_relation_filepath(reltoastrelid) FROM pg_class"
            " WHERE oid = 'instances'::regclass"
        ).fetchone()
    assert row is not None
    return b"".join(Path(cluster.data, path).read_bytes() for path in row)
