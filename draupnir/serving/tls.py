"""Loads the API's own certificate and its key, and sets the TLS parameters."""

from __future__ import annotations

import ssl
from typing import NoReturn

from draupnir.settings import HttpSettings

# These ciphers of TLS 1.2 have forward secrecy and authenticated encryption. All ciphers of TLS 1.3 have both.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class CertificateError(Exception):
    """The certificate or its key cannot be used. The message says why and what to do."""


def load(http: HttpSettings) -> ssl.SSLContext:
    """Load certificate and key into a TLS context. Raises CertificateError.

    The context is always new, because loading a broken pair into an existing one would change half of it.
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
    """Raise ValueError. OpenSSL calls this for an encrypted key, and would prompt on the terminal otherwise."""
    raise ValueError("the key is encrypted; store it without a passphrase")
