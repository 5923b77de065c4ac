"""The failures of the client, as exceptions with a message and an exit code; must not import httpx.

ClientError
├── ConfigError           the user's own settings or files are wrong
├── ServerUnreachable     the server does not answer, or is unavailable for now
├── BadAnswer             the answer does not come from Draupnir's API
├── Unauthorized          the token is missing, or the server does not accept it
├── NotFound              the image, instance or token does not exist
├── Refused               the server refused the request; it has the API's code
├── FinaliseFailed        the image failed; the message ends with the tail of its log
├── ProgramFailed         scp or psql is missing or failed
├── Interrupted           the user pressed Ctrl-C
└── SeveralFailed         the command failed for several of its ids
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes. click itself uses 2 for an invalid command line."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    UNAUTHORIZED = 4
    NOT_FOUND = 5
    REFUSED = 6
    INTERRUPTED = 130


class ClientError(Exception):
    """A failure with a message for people: what happened, why, and what to do."""

    exit_code = ExitCode.FAILED


class ConfigError(ClientError):
    """The user's settings, environment or files are wrong."""


class ServerUnreachable(ClientError):
    """The server did not answer, or is unavailable for now. A retry may help."""

    exit_code = ExitCode.UNREACHABLE


class BadAnswer(ClientError):
    """The answer does not come from Draupnir's API."""


class Unauthorized(ClientError):
    """No token is set for this server, or the server does not accept it."""

    exit_code = ExitCode.UNAUTHORIZED


class NotFound(ClientError):
    """The image, instance or token does not exist, or belongs to another user."""

    exit_code = ExitCode.NOT_FOUND


class Refused(ClientError):
    """The server refused the request. `code` is the API's stable code."""

    exit_code = ExitCode.REFUSED

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class FinaliseFailed(ClientError):
    """Finalising an image failed, or ended and the image is not ready."""


class ProgramFailed(ClientError):
    """A program that the client runs is not installed, or failed."""


class Interrupted(ClientError):
    """The user pressed Ctrl-C."""

    exit_code = ExitCode.INTERRUPTED


class SeveralFailed(ClientError):
    """Several of the requested actions failed. The exit code is that of the first failure."""

    def __init__(self, failures: Sequence[ClientError]) -> None:
        super().__init__("\n".join(str(failure) for failure in failures))
        self.exit_code = failures[0].exit_code
