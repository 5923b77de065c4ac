"""Turns errors of httpx and of the API into the client's own errors: what happened, why, what to do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping

import httpx

from draupnir_client.errors import BadAnswer, ClientError, NotFound, Refused, ServerUnreachable, Unauthorized

# For these codes with status 429, waiting does not help.
_QUOTAS = frozenset({"too_many_instances", "too_many_tokens"})
# This advice for the command line follows the API's own sentence.
_ADVICE = {
    "image_has_instances": "`draupnir-client images destroy --cascade ID` destroys them, too.",
}


def from_transport(error: httpx.HTTPError | httpx.InvalidURL, server: str, doing: str, *, changes: bool) -> ClientError:
    """Return the error for a request without an answer. `changes` is true if the request changes something."""
    causes = list(_causes(error))
    look = " The server may have executed the request; check with `list` before you try again." if changes else ""
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return ServerUnreachable(
            f"Cannot {doing}: {server} does not answer; check the url and the network, and that the server is running."
        )
    if isinstance(error, httpx.TimeoutException):
        return ServerUnreachable(f"Cannot {doing}: {server} took too long to answer; try again later.{look}")
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ServerUnreachable(
                f"Cannot {doing}: the certificate of {server} is not trusted ({cause.verify_message});"
                " check the host name in the url, or name your authority's certificate in SSL_CERT_FILE."
            )
        if isinstance(cause, ssl.SSLError):
            return ServerUnreachable(
                f"Cannot {doing}: TLS with {server} failed ({cause.reason or cause}); check scheme and port of the url."
            )
        if isinstance(cause, socket.gaierror):
            return ServerUnreachable(
                f"Cannot {doing}: the host name of {server} cannot be resolved ({cause.strerror}); check the url."
            )
        if isinstance(cause, ConnectionRefusedError):
            return ServerUnreachable(
                f"Cannot {doing}: nothing listens at {server}; check the url"
                " (`draupnir-client config show`) and that the server is running."
            )
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return ServerUnreachable(
            f"Cannot {doing}: {server} cannot be reached ({error}); check the url and the network."
        )
    if isinstance(error, httpx.TransportError):
        return ServerUnreachable(
            f"Cannot {doing}: the connection to {server} broke ({error}); check the url and try again.{look}"
        )
    return BadAnswer(f"Cannot {doing}: the answer of {server} cannot be read ({error}); check the url.")


def from_response(response: httpx.Response, server: str, doing: str) -> ClientError:
    """Return the error for an answer with an error status."""
    status = response.status_code
    if response.is_redirect:
        return BadAnswer(
            f"Cannot {doing}: {server} redirects to {response.headers['location']}. Redirects are not followed, because"
            " another server would get the token; set the right url with `draupnir-client config set url URL`."
        )
    problem = _problem(response)
    if problem is None:
        return BadAnswer(
            f"Cannot {doing}: {server} answered {status} {response.reason_phrase}, which is not an answer of Draupnir;"
            " check the url."
        )
    code, detail = problem
    advice = f" {_ADVICE[code]}" if code in _ADVICE else ""
    message = f"Cannot {doing}: {detail}{advice}"
    if status == 401 and code == "sign_in_refused":
        return Unauthorized(message)
    if status == 401 and response.request.headers.get("authorization", "").startswith("Bearer dru_"):
        return Unauthorized(
            f"Cannot {doing}: the token for {server} was signed out, revoked or has expired;"
            " sign in with `draupnir-client authenticate`, or set another DRAUPNIR_TOKEN."
        )
    if status == 401:
        return Unauthorized(
            f"Cannot {doing}: {server} does not accept the token; sign in with `draupnir-client authenticate`."
        )
    if status == 404:
        return NotFound(message)
    if (status == 429 and code not in _QUOTAS) or (status >= 500 and status != 507):
        return ServerUnreachable(message)
    return Refused(message, code)


def _problem(response: httpx.Response) -> tuple[str, str] | None:
    """Return code and detail of the API's error body, or None."""
    try:
        body = response.json()
    except ValueError:
        return None
    errors = body.get("errors") if isinstance(body, Mapping) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, Mapping):
        return None
    detail = first.get("detail") or first.get("title") or response.reason_phrase
    return str(first.get("code", "")), str(detail)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the chain of causes; httpx wraps errors of httpcore, which wraps those of the operating system."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
