"""`python3 -m draupnir.metadata`: prepares the private metadata cluster and executes its Postgres. Runs as draupnir.

`--wanted` reports by the exit code whether this server needs such a cluster: 0 yes, 1 no (the configuration names
another database), 255 the configuration is invalid. These are the codes of ExecCondition=.
"""

from __future__ import annotations

import os
import sys

from draupnir import settings
from draupnir.metadata.cluster import DATA, SOCKET_DIRECTORY, PreparationFailed, command, prepare

NOT_WANTED = 1
BAD_CONFIGURATION = 255


def main(arguments: list[str]) -> int:
    """Answer `--wanted`, or prepare the cluster and execute its Postgres; returns only after a failure."""
    if arguments == ["--wanted"]:
        return _wanted()
    if arguments:
        sys.stderr.write("usage: python3 -m draupnir.metadata [--wanted]\n")
        return 2
    try:
        binaries = prepare()
    except PreparationFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    argv = command(binaries, DATA, SOCKET_DIRECTORY)
    os.execv(argv[0], argv)  # noqa: S606, RET503


def _wanted() -> int:
    try:
        return NOT_WANTED if settings.load().database_url else 0
    except settings.SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_CONFIGURATION


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
