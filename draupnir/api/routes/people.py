"""The URLs of sign-ins, sessions and tokens."""

from __future__ import annotations

from draupnir import errors
from draupnir.api import sessions, sign_ins, tokens
from draupnir.api.endpoints import PAGE, Body, Endpoint, Errors, Parameter
from draupnir.api.limits import limited
from draupnir.api.pages import for_people
from draupnir.api.schemas.answers import Many, One
from draupnir.api.schemas.sessions import NewSession, NewSessionResource, NewSignIn, SessionResource, SignInResource
from draupnir.api.schemas.tokens import NewToken, TokenResource
from draupnir.roles import PERSONAL, PUBLIC

SIGN_IN: Errors = (errors.SignInNotConfigured, errors.EncryptionKeyMissing, errors.TooManyRequests)

ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/sessions/current",
        access=PERSONAL,
        handler=sessions.show,
        does="Returns the current identity: `name`, `role`, `kind`, `scope`, `expires_at`.",
        answers={200: One[SessionResource]},
    ),
    Endpoint(
        method="POST",
        path="/sessions",
        access=PUBLIC,
        handler=limited(sessions.create),
        does="Exchanges a code for a session. A code is valid for a minute and once (PKCE, RFC 7636, S256).",
        body=Body("sessions", NewSession, {"code": "…", "code_verifier": "…"}),
        answers={201: One[NewSessionResource]},
        errors=(*SIGN_IN, errors.SignInRefused),
    ),
    Endpoint(
        method="DELETE",
        path="/sessions/current",
        access=PERSONAL,
        handler=sessions.destroy,
        does="Signs out: revokes the token of the request, also a read-only one. The shared secret cannot be revoked.",
        answers={204: None},
        errors=(errors.NotASession,),
        for_read_only=True,
    ),
    Endpoint(
        method="POST",
        path="/sign_ins",
        access=PUBLIC,
        handler=limited(sign_ins.create),
        does="Returns a `url` for a browser, valid for ten minutes and once.",
        body=Body("sign_ins", NewSignIn, {"code_challenge": "…", "loopback_port": 49152}),
        answers={201: One[SignInResource]},
        errors=SIGN_IN,
    ),
    Endpoint(
        method="GET",
        path="/authenticate",
        access=PUBLIC,
        handler=for_people(limited(sign_ins.authenticate)),
        does="Redirects to the identity provider; for browsers.",
        parameters=(Parameter("sign_in", {"type": "string"}, "…"),),
        answers={302: None},
        for_people=True,
        errors=(*SIGN_IN, errors.SignInGone, errors.ProviderUnavailable),
    ),
    Endpoint(
        method="GET",
        path="/oauth_callback",
        access=PUBLIC,
        handler=for_people(limited(sign_ins.come_back)),
        does="Redirects to `http://127.0.0.1:PORT/?code=…` or `?error=…`. Without a port, shows the code.",
        parameters=tuple(Parameter(name, {"type": "string"}, "…") for name in ("state", "code", "error", "iss")),
        answers={200: PAGE, 302: None},
        for_people=True,
        errors=(*SIGN_IN, errors.SignInGone, errors.SignInRefused, errors.ProviderUnavailable),
    ),
    Endpoint(
        method="GET",
        path="/tokens",
        access=PERSONAL,
        handler=tokens.list_own,
        does="Lists your sessions and tokens with `created_at`, `expires_at`, `last_used_at`.",
        answers={200: Many[TokenResource]},
    ),
    Endpoint(
        method="POST",
        path="/tokens",
        access=PERSONAL,
        handler=tokens.create,
        does="Creates a named token and returns it once in `token`.",
        body=Body("tokens", NewToken, {"name": "ci", "scope": "read_only", "expires_in": 2592000}),
        answers={201: One[TokenResource]},
        errors=(errors.TokenNameTaken, errors.TooManyTokens, errors.Unauthorized),
    ),
    Endpoint(
        method="DELETE",
        path="/tokens/{token_id}",
        access=PERSONAL,
        handler=tokens.revoke,
        does="Revokes a session or token.",
        answers={204: None},
    ),
)
