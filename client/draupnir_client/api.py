"""Draupnir's HTTP API, one method per endpoint: takes values, returns models, raises the client's own errors."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import urlencode

import httpx

from draupnir_client import __version__, problems
from draupnir_client.config import Config
from draupnir_client.errors import BadAnswer, ConfigError, Unauthorized
from draupnir_client.models import (
    Event,
    Image,
    Instance,
    ReportRow,
    read_event,
    read_image,
    read_image_error,
    read_instance,
    read_report,
)
from draupnir_client.people import (
    Caller,
    NewSession,
    NewToken,
    SignIn,
    Token,
    read_caller,
    read_new_session,
    read_new_token,
    read_sign_in,
    read_token,
)

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
# Creating and destroying wait for disks and for Postgres.
WORK_TIMEOUT_S = 600.0
# A server that does not know `Prefer: respond-async` answers only when the image is done.
FINALISE_TIMEOUT_S = 24 * 3600.0


def open_http(config: Config, timeout_s: float = READ_TIMEOUT_S, *, anonymous: bool = False) -> httpx.Client:
    """Return the connection to the configured server, with its token.

    With `anonymous`, which is for signing in, the client sends no token. Raises Unauthorized without a token, and
    ConfigError if the connection is not encrypted.
    """
    url = config.url
    if not anonymous and config.token is None and config.token_of:
        raise Unauthorized(
            f"The saved token is for {config.token_of} and is not sent to {url};"
            f" sign in with `draupnir-client --url {url} authenticate`, or set DRAUPNIR_TOKEN."
        )
    if not anonymous and config.token is None:
        raise Unauthorized(f"You have no token for {url}; sign in with `draupnir-client authenticate`.")
    if not url.is_private:
        raise ConfigError(
            f"The client sends no token to {url}, because the connection is not encrypted;"
            " use the server's https:// address."
        )
    try:
        return httpx.Client(
            base_url=str(url),
            headers={
                **({} if anonymous else {"Authorization": f"Bearer {config.token}"}),
                "Accept": "application/json",
                "User-Agent": f"draupnir-client/{__version__}",
            },
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            # Trust the system's authorities or SSL_CERT_FILE, not httpx's own bundle. Loading either takes 25 ms, so
            # an unencrypted connection gets an empty list, which trusts no server.
            verify=ssl.create_default_context() if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            # A proxy could read the token on an unencrypted connection to this machine.
            trust_env=not url.is_loopback,
            follow_redirects=False,
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ConfigError(f"The environment has an unusable proxy ({error}); correct or unset HTTPS_PROXY.") from error


class DraupnirAPI:
    """The API behind one httpx.Client, which has base url, token and default timeouts. Raises ClientError."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def list_images(self) -> list[Image]:
        """Return all images, by id."""
        return [read_image(item) for item in self._list("/images", "list images")]

    def get_image(self, image_id: int) -> Image:
        """Return one image."""
        return read_image(self._data("GET", f"/images/{image_id}", f"show image {image_id}"))

    def get_image_error(self, image_id: int) -> str:
        """Return the full error of a failed image. It quotes raw data, so it is only for uploaders and admins."""
        return read_image_error(self._data("GET", f"/images/{image_id}/error", f"show the error of image {image_id}"))

    def get_image_report(self, image_id: int) -> list[ReportRow]:
        """Return the report of an image that was finalised, or that failed."""
        return read_report(self._data("GET", f"/images/{image_id}/report", f"show the report of image {image_id}"))

    def create_image(
        self,
        backed_up_at: str,
        anonymisation_script: str,
        settings: Mapping[str, str] | None = None,
        canaries: Sequence[str] | None = None,
        *,
        keep_residue: bool = False,
    ) -> Image:
        """Create an image, to which a backup can then be uploaded. `backed_up_at` is in RFC 3339.

        The finalise fails if a file of the image contains one of the `canaries`. With `keep_residue`, the files keep
        values that the script removes.
        """
        attributes: dict[str, object] = {"backed_up_at": backed_up_at, "anonymisation_script": anonymisation_script}
        attributes |= {"settings": settings} if settings else {}
        attributes |= {"canaries": canaries} if canaries else {}
        attributes |= {"keep_residue": True} if keep_residue else {}
        return read_image(self._data("POST", "/images", "create an image", _body("images", attributes)))

    def update_image(
        self,
        image_id: int,
        *,
        backed_up_at: str | None = None,
        anonymisation_script: str | None = None,
        settings: Mapping[str, str | None] | None = None,
        canaries: Sequence[str] | None = None,
        keep_residue: bool | None = None,
    ) -> Image:
        """Change the given attributes of an image that is not ready. A setting that is None is removed."""
        given: dict[str, object] = {"backed_up_at": backed_up_at, "anonymisation_script": anonymisation_script}
        given |= {"settings": settings or None, "canaries": canaries, "keep_residue": keep_residue}
        attributes = {name: value for name, value in given.items() if value is not None}
        doing = f"update image {image_id}"
        return read_image(self._data("PATCH", f"/images/{image_id}", doing, _body("images", attributes)))

    def finalise_image(self, image_id: int) -> Image:
        """Start finalising, or join a finalise in progress. Returns at once; `get_image` shows the progress."""
        doing = f"finalise image {image_id}"
        return read_image(self._data("POST", f"/images/{image_id}/done", doing, timeout_s=FINALISE_TIMEOUT_S))

    def destroy_image(self, image_id: int, *, cascade: bool = False) -> None:
        """Destroy an image. The server refuses while it has instances, unless `cascade` destroys them, too."""
        path = f"/images/{image_id}" + ("?cascade=true" if cascade else "")
        self._send("DELETE", path, f"destroy image {image_id}", timeout_s=WORK_TIMEOUT_S)

    def list_instances(self, *, everybodys: bool = False) -> list[Instance]:
        """Return the caller's instances, or for admins those of all users, by id, without credentials."""
        path = "/instances" + ("?all=true" if everybodys else "")
        return [read_instance(item) for item in self._list(path, "list instances")]

    def get_instance(self, instance_id: int, *, role: str | None = None) -> Instance:
        """Return an instance, with fresh credentials of a Postgres role if the caller owns it."""
        # The server says why it refuses a name that is not UTF-8.
        path = f"/instances/{instance_id}" + ("" if role is None else f"?{urlencode({'role': os.fsencode(role)})}")
        return read_instance(self._data("GET", path, f"show instance {instance_id}"))

    def create_instance(
        self,
        image_id: int,
        *,
        sleep_after_s: int | None = None,
        network: str | None = None,
        max_bytes: int | None = None,
        settings: Mapping[str, str] | None = None,
        superuser: bool = False,
        role: str | None = None,
    ) -> Instance:
        """Create an instance, and return it with credentials, ready for connections. The server has the defaults."""
        given: dict[str, object] = {"image_id": image_id, "sleep_after": sleep_after_s, "network": network}
        # An older server does not know these attributes.
        given |= {"max_bytes": max_bytes, "settings": settings or None, "superuser": superuser or None, "role": role}
        attributes = {name: value for name, value in given.items() if value is not None}
        doing, body = f"create an instance of image {image_id}", _body("instances", attributes)
        return read_instance(self._data("POST", "/instances", doing, body, timeout_s=WORK_TIMEOUT_S))

    def restart_instance(self, instance_id: int) -> Instance:
        """Restart Postgres and the port of an instance, or start them if the instance is stopped."""
        path, doing = f"/instances/{instance_id}/restart", f"restart instance {instance_id}"
        return read_instance(self._data("POST", path, doing, _body("instances", {}), timeout_s=WORK_TIMEOUT_S))

    def destroy_instance(self, instance_id: int) -> None:
        """Destroy an instance."""
        self._send("DELETE", f"/instances/{instance_id}", f"destroy instance {instance_id}", timeout_s=WORK_TIMEOUT_S)

    def allow_address(self, instance_id: int, address: str, *, expires_in_s: int | None = None) -> None:
        """Add an address or network to the allowlist of an instance. The server has the default for `expires_in_s`."""
        given = {"address": address, "expires_in": expires_in_s}
        attributes = {name: value for name, value in given.items() if value is not None}
        doing = f"allow {address} on instance {instance_id}"
        self._send("POST", f"/instances/{instance_id}/addresses", doing, _body("addresses", attributes))

    def disallow_address(self, instance_id: int, address: str) -> None:
        """Remove an address or network from the allowlist of an instance."""
        path = f"/instances/{instance_id}/addresses?{urlencode({'address': address})}"
        self._send("DELETE", path, f"disallow {address} on instance {instance_id}")

    def restore_instance(self, instance_id: int, *, owner: str | None = None) -> Instance:
        """Open an instance again that was closed by offboarding, for its owner or another user, as an admin."""
        body = _body("instances", {} if owner is None else {"owner": owner})
        path, doing = f"/instances/{instance_id}/restore", f"restore instance {instance_id}"
        return read_instance(self._data("POST", path, doing, body, timeout_s=WORK_TIMEOUT_S))

    def list_events(self, *, after: int | None = None, everybodys: bool = False) -> list[Event]:
        """Return the last events, or the first ones after an id, of the caller or (for admins) of all users."""
        asked = {**({} if after is None else {"after": str(after)}), **({"all": "true"} if everybodys else {})}
        path = "/events" + (f"?{urlencode(asked)}" if asked else "")
        return [read_event(item) for item in self._list(path, "list events")]

    def start_sign_in(self, code_challenge: str, loopback_port: int | None) -> SignIn:
        """Start a sign-in. Without a port, the user pastes the code (RFC 7636, RFC 8252)."""
        attributes = {"code_challenge": code_challenge, "loopback_port": loopback_port}
        return read_sign_in(self._data("POST", "/sign_ins", "sign in", _body("sign_ins", attributes)))

    def create_session(self, code: str, code_verifier: str) -> NewSession:
        """Exchange the code of a sign-in for a session. A code works once."""
        attributes = {"code": code, "code_verifier": code_verifier}
        return read_new_session(self._data("POST", "/sessions", "sign in", _body("sessions", attributes)))

    def get_caller(self) -> Caller:
        """Return the current identity."""
        return read_caller(self._data("GET", "/sessions/current", "show your identity"))

    def sign_out(self) -> None:
        """Revoke the token that authenticates this request."""
        self._send("DELETE", "/sessions/current", "sign out")

    def list_tokens(self) -> list[Token]:
        """Return the caller's sessions and named tokens."""
        return [read_token(item) for item in self._list("/tokens", "list tokens")]

    def create_token(self, name: str, *, read_only: bool, expires_in_s: int | None) -> NewToken:
        """Create a named token. The server has the default for `expires_in_s`."""
        lifetime = {} if expires_in_s is None else {"expires_in": expires_in_s}
        attributes = {"name": name, "scope": "read_only" if read_only else "full", **lifetime}
        return read_new_token(self._data("POST", "/tokens", f"create token {name}", _body("tokens", attributes)))

    def revoke_token(self, token_id: int) -> None:
        """Revoke a session or named token of the caller."""
        self._send("DELETE", f"/tokens/{token_id}", f"revoke token {token_id}")

    def _list(self, path: str, doing: str) -> list[object]:
        data = self._data("GET", path, doing)
        if not isinstance(data, list):
            raise BadAnswer(f"Cannot {doing}: the server's answer has no list; check the url.")
        return data

    def _data(
        self, method: str, path: str, doing: str, body: object = None, *, timeout_s: float | None = None
    ) -> object:
        """Send a request and return the `data` of its answer."""
        response = self._send(method, path, doing, body, timeout_s=timeout_s)
        try:
            answer = response.json()
        except ValueError as error:
            raise BadAnswer(f"Cannot {doing}: the server's answer is not JSON; check the url.") from error
        return answer.get("data") if isinstance(answer, dict) else None

    def _send(
        self, method: str, path: str, doing: str, body: object = None, *, timeout_s: float | None = None
    ) -> httpx.Response:
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S) if timeout_s else self._http.timeout
        headers = {"Prefer": "respond-async"} if path.endswith("/done") else {}
        server = str(self._http.base_url).rstrip("/")
        try:
            request = self._http.build_request(method, path, json=body, headers=headers, timeout=timeout)
            response = self._http.send(request, follow_redirects=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # If the answer to a sign-in or sign-out is lost, the user can repeat it without checking.
            changes = method != "GET" and not path.startswith(("/sign_ins", "/sessions"))
            raise problems.from_transport(error, server, doing, changes=changes) from error
        if not response.is_success:
            raise problems.from_response(response, server, doing)
        return response


def _body(
    kind: Literal["images", "instances", "addresses", "sign_ins", "sessions", "tokens"],
    attributes: Mapping[str, object],
) -> object:
    return {"data": {"type": kind, "attributes": attributes}}
