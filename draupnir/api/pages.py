"""The pages of the sign-in in a browser: fixed text, without scripts and without content of the request."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from draupnir import errors
from draupnir.api.limits import Handler
from draupnir.api.problems import headers_of, status_of
from draupnir.callers import Caller

_STYLE = (
    "body{font:18px/1.5 system-ui,sans-serif;max-width:34em;margin:15vh auto 0;padding:0 1.5em;color:#1c2733;"
    "background:#fbfaf6}h1{font-size:1.5em;font-weight:600}code{display:block;margin:1em 0;padding:.7em 1em;"
    "font-size:.9em;overflow-wrap:anywhere;background:#fff;border:1px solid #c9bd95;border-radius:4px;"
    "user-select:all;-webkit-user-select:all}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}
_AGAIN = "Go back to your terminal and run <b>draupnir-client authenticate</b> once more."


@dataclass(frozen=True, slots=True)
class Page:
    """A heading and paragraphs, in HTML."""

    heading: str
    paragraphs: tuple[str, ...]


_SIGNED_IN = Page(
    "Almost there",
    (
        "Paste this code into the terminal in which you have just started to sign in. It works once, for a minute.",
        "<code>{code}</code>",
        "Paste it nowhere else and give it to nobody: with the code, others could sign in as you. If you have"
        " not started to sign in yourself, close this page.",
    ),
)
# The most specific class wins.
_FAILURES: dict[type[errors.DraupnirError], Page] = {
    errors.SignInGone: Page(
        "This sign-in cannot continue",
        ("Its link was used already, is older than ten minutes, or was opened in another browser.", _AGAIN),
    ),
    errors.SignInRefused: Page(
        "You were not signed in",
        (
            "Your identity provider did not confirm an account that may sign in here.",
            f"If you have several accounts, choose the one of your company. {_AGAIN}",
            "If you chose that account, ask the administrator of this server; its journal has the reason.",
        ),
    ),
    errors.SignInNotConfigured: Page(
        "Sign-in is not configured",
        ("No identity provider is configured on this server.", "Ask its administrator how to sign in."),
    ),
    errors.ProviderUnavailable: Page(
        "Your identity provider does not answer",
        ("This is not a problem of your account, as far as this server can determine.", f"Wait a moment. {_AGAIN}"),
    ),
    errors.TooManyRequests: Page(
        "Too many tries",
        ("There were too many sign-in attempts from your address.", "Wait a minute, then reload this page."),
    ),
    errors.DraupnirError: Page(
        "Sign-in is unavailable",
        ("This server cannot sign you in at the moment. Wait a moment and reload this page.",),
    ),
}


def for_people(answer: Handler) -> Handler:
    """Wrap the handler to show errors as pages."""

    async def answer_for_people(request: Request, caller: Caller) -> Response:
        try:
            return await answer(request, caller)
        except errors.DraupnirError as error:
            request.state.error_code = error.code
            page = next(_FAILURES[kind] for kind in type(error).__mro__ if kind in _FAILURES)
            return _show(page, status_of(error), headers_of(error))

    return answer_for_people


def show_code(code: str) -> Response:
    """Return the page with the code to paste; the code is our own, in base64url."""
    shown = Page(_SIGNED_IN.heading, tuple(each.format(code=code) for each in _SIGNED_IN.paragraphs))
    return _show(shown, HTTPStatus.OK, {})


def _show(page: Page, status: int, headers: dict[str, str]) -> Response:
    paragraphs = "".join(each if each.startswith("<code>") else f"<p>{each}</p>" for each in page.paragraphs)
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Draupnir: {page.heading}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{page.heading}</h1>{paragraphs}</body></html>"
    )
    return HTMLResponse(body, status, {**_HEADERS, **headers})
