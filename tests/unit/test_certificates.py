from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import TypeAdapter

from draupnir import certificates
from draupnir.certificates import create_authority, issue_client, issue_server
from draupnir_helper.wire import Pem


def names(pem: str) -> x509.SubjectAlternativeName:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_certificates_are_signed_by_their_authority_and_by_no_other() -> None:
    authority, other = create_authority(), create_authority()
    ca = x509.load_pem_x509_certificate(authority.certificate.encode())
    wrong = x509.load_pem_x509_certificate(other.certificate.encode())
    for pem in (issue_server(authority, "db").certificate, issue_client(authority).client_certificate):
        leaf = x509.load_pem_x509_certificate(pem.encode())
        leaf.verify_directly_issued_by(ca)
        with pytest.raises(Exception, match=r"^$"):
            leaf.verify_directly_issued_by(wrong)
        assert leaf.not_valid_after_utc <= ca.not_valid_after_utc
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("hostname", ["db.example.org", "localhost"])
def test_the_server_is_known_by_its_name_and_on_the_loopback(hostname: str) -> None:
    alternative = names(issue_server(create_authority(), hostname).certificate)
    assert set(alternative.get_values_for_type(x509.DNSName)) == {hostname, "localhost"}
    assert len(alternative) == len(set(alternative))
    addresses = alternative.get_values_for_type(x509.IPAddress)
    assert addresses == [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::1", "127.0.0.1"])
def test_a_public_address_is_an_address_in_the_certificate(address: str) -> None:
    alternative = names(issue_server(create_authority(), address).certificate)
    assert ipaddress.ip_address(address) in alternative.get_values_for_type(x509.IPAddress)
    assert alternative.get_values_for_type(x509.DNSName) == ["localhost"]


def test_pkcs12_has_the_same_certificate_and_key_under_the_documented_password() -> None:
    issued = issue_client(create_authority())
    found = pkcs12.load_pkcs12(issued.client_pkcs12, b"draupnir")
    assert found.cert is not None
    assert found.cert.friendly_name == b"user"
    assert found.cert.certificate.public_bytes(Encoding.PEM).decode() == issued.client_certificate
    assert found.key is not None
    assert found.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode() == issued.client_key


def test_a_client_certificate_is_for_draupnir_and_thirty_days_and_a_server_certificate_is_not_a_client_one() -> None:
    authority = create_authority()
    client = x509.load_pem_x509_certificate(issue_client(authority).client_certificate.encode())
    server = x509.load_pem_x509_certificate(issue_server(authority, "db").certificate.encode())
    assert [name.value for name in client.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["draupnir"]
    left = client.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    assert client.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=59)
    usages = [it.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value for it in (client, server)]
    assert [list(usage) for usage in usages] == [[ExtendedKeyUsageOID.CLIENT_AUTH], [ExtendedKeyUsageOID.SERVER_AUTH]]


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=365)], ids=["right", "a year ahead"])
def test_certificates_made_under_a_wrong_clock_are_valid(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """A corrected clock, here or at the client, must not make the certificates of an instance invalid."""
    began = datetime.now(UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp((began + ahead).timestamp(), tz)

    monkeypatch.setattr(certificates, "datetime", Clock)
    authority = create_authority()
    made = [
        authority.certificate,
        issue_server(authority, "db").certificate,
        issue_client(authority).client_certificate,
    ]
    for certificate in (x509.load_pem_x509_certificate(pem.encode()) for pem in made):
        assert certificate.not_valid_before_utc < began - timedelta(days=365)
        assert certificate.not_valid_after_utc > began + timedelta(days=29)


def test_each_client_certificate_has_a_new_key() -> None:
    authority = create_authority()
    first, second = issue_client(authority), issue_client(authority)
    assert first.client_key != second.client_key
    key = load_pem_private_key(first.client_key.encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)


def test_all_certificates_match_the_wire_contract() -> None:
    authority = create_authority()
    server = issue_server(authority, "db.example.org")
    for pem in (authority.certificate, server.certificate, server.key):
        TypeAdapter(Pem).validate_python(pem)
