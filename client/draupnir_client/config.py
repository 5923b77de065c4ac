"""Settings of the client: the environment overrides `~/.config/draupnir/config.toml`, which overrides defaults.

A saved token belongs to the url it was saved with. DRAUPNIR_URL and --url do not send it to another server.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from draupnir_client.errors import ConfigError
from draupnir_client.files import base_directory, instances_directory, make_private_directory, write_private
from draupnir_client.urls import ServerURL, parse_url

DEFAULT_URL = "http://127.0.0.1:8432"
KEYS = ("url", "token", "database")


@dataclass(frozen=True, slots=True)
class Saved:
    """The content of the file. A key that is absent or empty is None."""

    url: str | None = None
    token: str | None = None
    database: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of a command. `token_of` names the server of a saved token that is not for `url`.

    `database` is None unless the user has chosen one. An instance may have a default of its own.
    """

    url: ServerURL
    token: str | None
    database: str | None
    token_of: str | None = None


def path() -> Path:
    """Return the path of the file, which may not exist."""
    return base_directory("XDG_CONFIG_HOME", ".config") / "draupnir" / "config.toml"


def override(url_option: str | None) -> str | None:
    """Return the url that overrides the saved one, or None. `url_option` is the value of --url."""
    return url_option or os.environ.get("DRAUPNIR_URL") or None


def load(url_option: str | None = None) -> Config:
    """Return url, token and database."""
    return _settle(url_option, os.environ.get("DRAUPNIR_TOKEN"))


def load_saved(url_option: str | None = None) -> Config:
    """Return the settings without DRAUPNIR_TOKEN, because signing out concerns the token in the file."""
    return _settle(url_option, None)


def _settle(url_option: str | None, token: str | None) -> Config:
    saved = read()
    home = parse_url(saved.url or DEFAULT_URL)
    chosen = override(url_option)
    url = parse_url(chosen) if chosen else home
    database = saved.database or _database_of_environment()
    if token:
        return Config(url, check_token(token), database)
    if saved.token and url.origin != home.origin:
        return Config(url, None, database, token_of=str(home))
    return Config(url, check_token(saved.token) if saved.token else None, database)


def _database_of_environment() -> str | None:
    """Return PGDATABASE, or None if an earlier `env` has set it to the database of an instance."""
    database, key = os.environ.get("PGDATABASE"), os.environ.get("PGSSLKEY")
    if database and key and Path(key).is_relative_to(instances_directory()):
        return None
    return database or None


def check_token(text: str) -> str:
    """Return the token without surrounding white space. Raises ConfigError if a header cannot contain it."""
    token = text.strip()
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigError("The token is empty, or has blanks or unusual characters; copy the whole token again.")
    return token


def read() -> Saved:
    """Read the file, and ignore unknown keys, so that versions of the client can share it."""
    values = _parse(_text())
    for key in KEYS:
        if not isinstance(values.get(key, ""), str):
            raise ConfigError(f'In {path()}, {key} is not a string; write it as {key} = "…".')
    return Saved(**{key: value for key in KEYS if isinstance(value := values.get(key), str) and value})


def save(**changes: str | None) -> None:
    """Set the given keys in the file, or remove those that are None. Comments and other lines stay."""
    before = _text()
    after = before
    for key, value in changes.items():
        after = _edit(after, key, value)
    expected = {key: value for key, value in (_parse(before) | changes).items() if value is not None}
    if _parse(after) != expected:
        raise ConfigError(f"The client cannot edit {path()} without changing other values; edit the file by hand.")
    # Keep a symbolic link: people keep this file in a repository.
    target = path().resolve()
    make_private_directory(path().parent)
    write_private(target, after.encode())


def save_url(text: str) -> bool:
    """Set the url, or remove it if it is empty. Return whether that removed a token of another server."""
    saved = read()
    url = parse_url(text or DEFAULT_URL)
    forget = saved.token is not None and saved.url is not None and not _same_server(saved.url, url)
    save(url=str(url) if text else None, **({"token": None} if forget else {}))
    return forget


def _same_server(saved_url: str, url: ServerURL) -> bool:
    try:
        return parse_url(saved_url).origin == url.origin
    except ConfigError:
        return False


def _text() -> str:
    try:
        return path().read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {path()}: {error}; fix the file or move it away.") from error


def _parse(text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path()} is not valid TOML: {error}; fix that line or move the file away.") from error


def _edit(text: str, key: str, value: str | None) -> str:
    """Replace, add or remove one top-level line. The caller parses the result to check that nothing else changed."""
    lines = text.splitlines(keepends=True)
    new = [] if value is None else [f"{key} = {toml_string(value)}\n"]
    for number, line in enumerate(lines):
        if line.lstrip().startswith("["):
            return "".join(lines[:number] + new + lines[number:])
        if re.match(rf"\s*{key}\s*=", line):
            return "".join(lines[:number] + new + lines[number + 1 :])
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return "".join(lines + new)


def toml_string(text: str) -> str:
    """Write a TOML basic string (TOML 1.0, "String"): quotes, backslashes and control characters escaped."""

    def escape(match: re.Match[str]) -> str:
        character = match[0]
        return f"\\{character}" if character in '"\\' else f"\\u{ord(character):04X}"

    if re.search(r"[\ud800-\udfff]", text):
        raise ConfigError("The value is not valid text in your locale; use UTF-8.")
    return '"' + re.sub(r'["\\\x00-\x1f\x7f]', escape, text) + '"'
