"""Everything that can go wrong in the client, as exceptions that carry a sentence and an exit code; knows no HTTP.

ClientError
├── ConfigError           the user's own settings or files are in the way
├── ServerUnreachable     no answer, or the server says: not now
├── BadAnswer             an answer that is not Draupnir's API
├── Unauthorized          no token, or one the server does not accept
├── NotFound              no such image, instance or token
├── Refused               understood, and not done; carries the server's code
├── FinaliseFailed        the image failed; the message ends with the tail of its log
├── ProgramFailed         scp or psql is missing or failed
├── Interrupted           Ctrl-C
└── SeveralFailed         one command, several ids, more than one failure
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell sees; 2 is click's own for a command line that cannot be meant."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    UNAUTHORIZED = 4
    NOT_FOUND = 5
    REFUSED = 6
    INTERRUPTED = 130


class ClientError(Exception):
    """A failure a person can read: what happened, why, and what to do."""

    exit_code = ExitCode.FAILED


class ConfigError(ClientError):
    """The user's settings, environment or files do not allow it."""


class ServerUnreachable(ClientError):
    """The server did not answer, or answered that it cannot now; asking again later may help."""

    exit_code = ExitCode.UNREACHABLE


class BadAnswer(ClientError):
    """The answer is not one that Draupnir's API gives."""


class Unauthorized(ClientError):
    """There is no token for this server, or the server does not accept it."""

    exit_code = ExitCode.UNAUTHORIZED


class NotFound(ClientError):
    """The server does not have the image, instance or token, or it is another person's."""

    exit_code = ExitCode.NOT_FOUND


class Refused(ClientError):
    """The server understood and did not do it; `code` is the API's stable code."""

    exit_code = ExitCode.REFUSED

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class FinaliseFailed(ClientError):
    """Finalising an image failed, or ended without the image being ready."""


class ProgramFailed(ClientError):
    """A program the client runs is not installed, or ended with a failure."""


class Interrupted(ClientError):
    """The user pressed Ctrl-C."""

    exit_code = ExitCode.INTERRUPTED


class SeveralFailed(ClientError):
    """Several of the things asked for failed; the exit code is that of the first."""

    def __init__(self, failures: Sequence[ClientError]) -> None:
        super().__init__("\n".join(str(failure) for failure in failures))
        self.exit_code = failures[0].exit_code
