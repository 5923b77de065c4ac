"""Starts the helper: loads settings, takes the inherited socket, cleans up, and serves requests until SIGTERM."""

from __future__ import annotations

import logging
import os
import pwd
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType

from draupnir_helper import filters, settings, storage, subvolumes
from draupnir_helper.dispatch import Dispatcher
from draupnir_helper.errors import HelperError
from draupnir_helper.notify import notify
from draupnir_helper.server import serve

_FIRST_INHERITED = 3  # sd_listen_fds(3)
_DAEMON_USER = "draupnir"

log = logging.getLogger("draupnir_helper")


def main() -> None:
    """Serve the socket that systemd passed."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    os.umask(0o077)
    try:
        loaded = settings.load()
    except (OSError, ValueError) as error:
        log.error("the configuration is invalid; see `draupnir doctor`: %s", " ".join(str(error).split()))
        sys.exit(os.EX_CONFIG)
    try:
        with storage.root() as root:
            subvolumes.sweep(root)
    except (HelperError, OSError) as error:
        # Leftovers are harmless, but a helper that does not start is not.
        log.warning("unfinished subvolumes could not be removed: %s", error)
    with suppress(HelperError):  # each request asks again
        filters.filters_addresses()
    listener = socket.socket(fileno=_FIRST_INHERITED)

    def stop(_number: int, _frame: FrameType | None) -> None:
        listener.close()

    signal.signal(signal.SIGTERM, stop)
    notify(READY="1")
    # root may connect, too, for `draupnir doctor`.
    serve(listener, Dispatcher(loaded), {0, pwd.getpwnam(_DAEMON_USER).pw_uid})


if __name__ == "__main__":
    main()
