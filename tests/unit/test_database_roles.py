"""Laws of the roles as which users may sign in to an instance."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from draupnir import certificates
from draupnir.errors import RoleRefused
from draupnir.operations import database_roles

ODD = ['It\'s "odd" Ümläut, $(x) = 7', "x" * 63, "é" * 31, "Postgres", "PG_Monitor", "a b", "-d", "../..", "🐘" * 15]


@pytest.mark.parametrize("role", ["app", "draupnir", *ODD])
def test_a_certificate_carries_the_name_of_its_role(role: str) -> None:
    assert database_roles.allowed(role, 1, "postgres") == role
    credentials = certificates.issue_client(certificates.create_authority(), role)
    certificate = x509.load_pem_x509_certificate(credentials.client_certificate.encode())
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert (name.value, credentials.role) == (role, role)


@pytest.mark.parametrize(
    ("role", "superuser"),
    [
        ("postgres", "postgres"),
        ("boss", "boss"),
        *((role, "postgres") for role in ("pg_monitor", "pg_", "draupnir_superusers", "", "x" * 64, "é" * 32)),
        *((role, "postgres") for role in ("a\nb", "a\0b", "\x7f")),
        # A name in Latin-1 becomes these in JSON and in a URL.
        *((role, "postgres") for role in ("M\udcfcller", "M\ufffdller")),
        ("app", None),
    ],
)
def test_superusers_and_reserved_or_impossible_names_are_refused(role: str, superuser: str | None) -> None:
    with pytest.raises(RoleRefused) as raised:
        database_roles.allowed(role, 1, superuser)
    assert raised.value.code == "role_refused"


def test_draupnir_is_the_default_also_for_images_of_older_versions() -> None:
    for role in (None, "draupnir"):
        assert database_roles.allowed(role, 1, None) == "draupnir"
