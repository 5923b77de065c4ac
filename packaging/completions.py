"""Writes the shell completions of both commands, as click generates them, to a folder: completions.py DIRECTORY."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

COMMANDS = ("draupnir", "draupnir-client")
FILE_NAMES = {"bash": "{}", "zsh": "_{}", "fish": "{}.fish"}


def completion(shell: str, command: str) -> str:
    """Return the completion script, which calls `command` for candidates; this needs only the name of the command."""
    complete = get_completion_class(shell)
    assert complete is not None
    variable = "_" + command.replace("-", "_").upper() + "_COMPLETE"
    values = complete(click.Command(command), {}, command, variable)
    return values.source_template % values.source_vars()


def main(directory: Path) -> None:
    for shell, file_name in FILE_NAMES.items():
        for command in COMMANDS:
            path = directory / shell / file_name.format(command)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(completion(shell, command), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
