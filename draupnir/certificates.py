"""The certificate authority of each instance and its certificates; pure computation with `cryptography`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from draupnir.models import Authority, Credentials

CLIENT_NAME = "draupnir"
AUTHORITY_LIFE = timedelta(days=3650)
CLIENT_LIFE = timedelta(days=30)
# Many readers of PKCS#12 need a password, and pgjdbc looks for this alias only. Neither of the two is secret.
PKCS12_PASSWORD = b"draupnir"
PKCS12_ALIAS = b"user"
# Certificates are valid from this date on, so that a wrong clock here or at a client has no effect.
NOT_BEFORE = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """The certificate and private key of one Postgres server, as PEM."""

    certificate: str
    key: str


def create_authority() -> Authority:
    """Create an authority for one instance, valid for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Draupnir instance authority")])
    expires = datetime.now(UTC) + AUTHORITY_LIFE
    certificate = (
        _builder(name, name, key.public_key(), key.public_key(), expires)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate=_pem(certificate), key=_key_pem(key))


def issue_server(authority: Authority, public_hostname: str) -> ServerIdentity:
    """Issue a server certificate for the public name or address, for localhost and for both loopback addresses."""
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    public = _general_name(public_hostname)
    if public not in names:
        names.insert(0, public)
    certificate, key = _issue(
        authority,
        "draupnir instance",
        ExtendedKeyUsageOID.SERVER_AUTH,
        AUTHORITY_LIFE,
        x509.SubjectAlternativeName(names),
    )
    return ServerIdentity(certificate=certificate, key=key)


def issue_client(authority: Authority, role: str = CLIENT_NAME) -> Credentials:
    """Issue credentials for thirty days; their common name is the role."""
    certificate, key = _issue(authority, role, ExtendedKeyUsageOID.CLIENT_AUTH, CLIENT_LIFE, None)
    return Credentials(
        ca_certificate=authority.certificate,
        client_certificate=certificate,
        client_key=key,
        client_pkcs12=_pkcs12(certificate, key),
        role=role,
    )


def _issue(
    authority: Authority,
    common_name: str,
    usage: ObjectIdentifier,
    life: timedelta,
    alternative_names: x509.SubjectAlternativeName | None,
) -> tuple[str, str]:
    signer = x509.load_pem_x509_certificate(authority.certificate.encode())
    signer_key = load_pem_private_key(authority.key.encode(), password=None)
    if not isinstance(signer_key, ec.EllipticCurvePrivateKey):
        raise TypeError("an authority's key is always an elliptic-curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    # A certificate must not outlive its authority: clients would refuse it with a misleading message.
    expires = min(datetime.now(UTC) + life, signer.not_valid_after_utc)
    builder = (
        _builder(name, signer.subject, key.public_key(), signer_key.public_key(), expires)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if alternative_names is not None:
        builder = builder.add_extension(alternative_names, critical=False)
    return _pem(builder.sign(signer_key, hashes.SHA256())), _key_pem(key)


def _pkcs12(certificate: str, key: str) -> bytes:
    """Return the certificate and the key as PKCS#12, with algorithms that old Java and macOS read, too."""
    private_key = load_pem_private_key(key.encode(), password=None)
    if not isinstance(private_key, ec.EllipticCurvePrivateKey):
        raise TypeError("a client's key is always an elliptic-curve key")
    # The password is public, so more rounds would only cost time.
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(1)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1())  # noqa: S303 - older readers support only this
        .build(PKCS12_PASSWORD)
    )
    leaf = x509.load_pem_x509_certificate(certificate.encode())
    return pkcs12.serialize_key_and_certificates(PKCS12_ALIAS, private_key, leaf, None, encryption)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    expires: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(expires)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
