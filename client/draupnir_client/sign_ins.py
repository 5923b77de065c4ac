"""Signs in with a browser: open a link, receive a code, and exchange the code for a session.

The code is useless without the verifier, which this process sends only to the server (RFC 7636). So an injected or an
intercepted code does not work.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import sys
import threading
import webbrowser
from collections.abc import Callable
from datetime import UTC, datetime

import click

from draupnir_client.api import DraupnirAPI
from draupnir_client.errors import ClientError, ServerUnreachable, Unauthorized
from draupnir_client.loopback import Listener
from draupnir_client.output import say
from draupnir_client.people import NewSession

# The clocks of client and server differ, so the wait has a minimum and a maximum.
SHORTEST_WAIT_S, LONGEST_WAIT_S = 60.0, 3600.0

_AGAIN = "try again with `draupnir-client authenticate`"
_ENDS: dict[str, ClientError] = {
    "sign_in_refused": Unauthorized(
        "The server refused the sign-in: the identity provider did not confirm an account that may sign in here. Choose"
        " another account, or ask the server's administrator, who finds the reason in the journal."
    ),
    "provider_unavailable": ServerUnreachable(
        "The server cannot sign you in now: the identity provider does not answer correctly; try again in a moment."
    ),
}


def has_browser() -> bool:
    """Return whether the user at the terminal would see a browser that opens on this machine."""
    if os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"):
        return False
    wanted = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    return not sys.platform.startswith("linux") or any(map(os.environ.get, wanted))


def sign_in_here(api: DraupnirAPI, open_browser: Callable[[str], bool]) -> NewSession:
    """Sign in with a browser on this machine, which returns the code to the listener."""
    verifier = secrets.token_urlsafe(48)
    with Listener() as listener:
        sign_in = api.start_sign_in(_challenge(verifier), listener.port)
        say(
            "Sign in in your browser, which opens now; Ctrl-C ends the wait."
            " If none opens: draupnir-client authenticate --no-browser"
        )
        # A thread opens the browser, because some browsers block until they are closed, and the listener has to run.
        threading.Thread(target=_open, args=(open_browser, sign_in.url), daemon=True).start()
        arrival = listener.wait(_seconds_until(sign_in.expires_at))
        if arrival is None:
            raise Unauthorized(f"The link expired before you signed in; {_AGAIN}.")
        made = None
        try:
            if arrival.code is None:
                raise _end(str(arrival.error))
            made = api.create_session(arrival.code, verifier)
        finally:
            arrival.answer(signed_in=made is not None)
        return made


def sign_in_elsewhere(api: DraupnirAPI) -> NewSession:
    """Sign in with a browser on any machine: it shows the code, and the user pastes it at a hidden prompt."""
    verifier = secrets.token_urlsafe(48)
    sign_in = api.start_sign_in(_challenge(verifier), None)
    say(f"Open this link in a browser, on any machine, and sign in there:\n\n  {sign_in.url}\n")
    code = click.prompt("Paste the code it shows (it stays hidden)", hide_input=True, err=True)
    return api.create_session(str(code).strip(), verifier)


def _open(open_browser: Callable[[str], bool], url: str) -> None:
    try:
        opened = open_browser(url)
    except (webbrowser.Error, OSError):
        opened = False
    if not opened:
        say(f"No browser could be opened; open this link in one on this machine:\n\n  {url}\n")


def _end(code: str) -> ClientError:
    return _ENDS.get(code) or Unauthorized(f"The server ended the sign-in ({code}); {_AGAIN}.")


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _seconds_until(moment: datetime) -> float:
    return min(max((moment - datetime.now(UTC)).total_seconds(), SHORTEST_WAIT_S), LONGEST_WAIT_S)
