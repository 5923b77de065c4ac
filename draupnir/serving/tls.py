"""The API's own certificate: read from its files as a whole or not at all, and what is spoken with it."""

from __future__ import annotations

import ssl
from typing import NoReturn

from draupnir.settings import HttpSettings

# For TLS 1.2; those of 1.3 are all good. Forward secrecy and authenticated encryption, nothing else.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class CertificateError(Exception):
    """The certificate or its key cannot be used; the message says why and what to do."""


def load(http: HttpSettings) -> ssl.SSLContext:
    """What a connection over TLS is begun with; raises CertificateError.

    A context of its own each time: one that a broken pair was loaded into would be left with half of it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(str(http.tls_certificate), str(http.tls_private_key), password=_no_passphrase)
    except (OSError, ValueError) as error:
        raise CertificateError(
            f"[http] tls_certificate {http.tls_certificate} with tls_private_key {http.tls_private_key} "
            f"cannot be used: {error}; {_advice(error)}."
        ) from error
    return context


def _advice(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "make both readable by the user draupnir, 0640 root:draupnir"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "the key belongs to another certificate; install both together"
    return "install the certificate with its chain and its key, both in PEM and not encrypted"


def _no_passphrase() -> NoReturn:
    """Instead of OpenSSL's question on a terminal that nobody looks at."""
    raise ValueError("the key is encrypted; store it without a passphrase")
