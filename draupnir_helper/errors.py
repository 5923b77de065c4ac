"""The exception that a handler raises when it refuses or fails. It has the code of the wire contract."""

from __future__ import annotations

import errno

from draupnir_helper.wire import ErrorCode


class HelperError(Exception):
    """A refusal with a stable code and a sentence for people."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


def from_os_error(error: OSError) -> HelperError:
    """Return NO_ROOM for a full disk, and INTERNAL with the system's message for other errors."""
    if error.errno in _NO_ROOM:
        return HelperError(
            ErrorCode.NO_ROOM, "The data disk is full; destroy instances or images, or enlarge the disk."
        )
    return HelperError(ErrorCode.INTERNAL, f"The server's disk reported an error: {error.strerror or error}.")
