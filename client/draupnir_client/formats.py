"""The formats of `env`, quoted for the parsers that read them. Names that a format cannot express are refused."""

from __future__ import annotations

import json
import os
import re
import shlex
import unicodedata
from collections.abc import Callable
from urllib.parse import quote, urlencode

from draupnir_client.environment import DEFAULT_ROLE, Connection, key_for_libpq, variables
from draupnir_client.errors import ConfigError

# libpq refuses longer lines in a service file.
SERVICE_LINE_BYTES = 1021


def shell(reached: Connection) -> str:
    """Return the line for `eval $(…)`. All formats raise ConfigError for a value that their readers would change."""
    return "export " + " ".join(f"{name}={_shell_word(name, value)}" for name, value in variables(reached).items())


def url(reached: Connection) -> str:
    """Return a URL as libpq's manual defines it ("Connection URIs")."""
    files = reached.files
    # node-postgres does not decode these in a path, and no reader needs them encoded. It does not decode : and @
    # either, but SQLAlchemy would look for the host behind them.
    database = _percent(reached.database, safe="$&+,;=")
    query = _query(
        sslmode="verify-full",
        sslrootcert=str(files.ca_certificate),
        sslcert=str(files.client_certificate),
        sslkey=key_for_libpq(reached),
    )
    return f"postgresql://{_percent(reached.role)}@{_authority(reached)}/{database}?{query}"


def jdbc(reached: Connection) -> str:
    """Return a URL for pgjdbc, which reads a key in DER."""
    files = reached.files
    query = _query(
        user=reached.role,
        sslmode="verify-full",
        sslrootcert=str(files.ca_certificate),
        sslcert=str(files.client_certificate),
        sslkey=str(files.client_key_der),
    )
    return f"jdbc:postgresql://{_authority(reached)}/{_percent(reached.database)}?{query}"


def dotenv(reached: Connection) -> str:
    """Return the lines of a .env file: the variables for libpq, and DATABASE_URL for drivers that read only a URL."""
    values = {**variables(reached), "DATABASE_URL": url(reached)}
    return "\n".join(f"{name}={_dotenv_value(name, value)}" for name, value in values.items())


def as_json(reached: Connection) -> str:
    """Return the variables as a JSON object."""
    return json.dumps(variables(reached), indent=2)


def service(reached: Connection) -> str:
    """Return a section of libpq's pg_service.conf; each role of an instance has its own section."""
    name = f"draupnir-{reached.instance_id}" + ("" if reached.role == DEFAULT_ROLE else f"-{reached.role}")
    if "]" in name:
        raise _refusal("service", "the name of the service", name, "contains ]")
    values = {
        "host": reached.host,
        "port": reached.port,
        "user": reached.role,
        "dbname": reached.database,
        "sslmode": "verify-full",
        "sslrootcert": str(reached.files.ca_certificate),
        "sslcert": str(reached.files.client_certificate),
        "sslkey": key_for_libpq(reached),
    }
    lines = [f"[{name}]", *(f"{key}={_service_value(key, value)}" for key, value in values.items())]
    return "\n".join(lines)


FORMATS: dict[str, Callable[[Connection], str]] = {
    "shell": shell,
    "url": url,
    "jdbc": jdbc,
    "dotenv": dotenv,
    "json": as_json,
    "service": service,
}


def _shell_word(name: str, value: str) -> str:
    """Quote a value for a shell, for a command substitution that is not quoted.

    The shell splits the line at blanks, and eval joins the pieces with single blanks. The shell also expands *, ? and [
    to file names. Quotes inside the line prevent neither, so values that would change are refused.
    """
    if _has_control_characters(value):
        raise _refusal("shell", name, value, "has control characters")
    if "  " in value or any(character in "*?[" for character in value):
        raise _refusal("shell", name, value, "has blanks or *?[ that the shell would change in `eval $(…)`")
    return shlex.quote(value)


def _dotenv_value(name: str, value: str) -> str:
    r"""Quote a value so that sh, Node.js, python-dotenv, Ruby's dotenv and Docker Compose read the same.

    These readers agree on plain words, and on quotes around a value without that quote, `\` and `$`.
    """
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,-]+", value):
        return value
    if not _has_control_characters(value) and not re.search(r"[\\$`]", value):
        for mark in "'\"":
            if mark not in value:
                return mark + value + mark
    raise _refusal("dotenv", name, value, r"has both kinds of quotes, or \, $, ` or control characters")


def _service_value(name: str, value: str) -> str:
    if _has_control_characters(value):
        raise _refusal("service", name, value, "has control characters")
    if value != value.rstrip():
        raise _refusal("service", name, value, "ends with a blank")
    if len(os.fsencode(f"{name}={value}")) > SERVICE_LINE_BYTES:
        raise _refusal("service", name, value, f"is longer than {SERVICE_LINE_BYTES} bytes")
    return value


def _has_control_characters(value: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in value)


def _refusal(form: str, name: str, value: str, reason: str) -> ConfigError:
    return ConfigError(
        f"The format {form} cannot express {name}: {value!r} {reason}; choose another value, or use"
        " `draupnir-client psql` or `draupnir-client env --format url`."
    )


def _authority(reached: Connection) -> str:
    return (f"[{reached.host}]" if ":" in reached.host else reached.host) + f":{reached.port}"


def _percent(value: str, safe: str = "") -> str:
    # Encode the bytes of a path or an argument, even if they are not valid text.
    return quote(os.fsencode(value), safe=safe)


def _query(**values: str) -> str:
    return urlencode({name: os.fsencode(value) for name, value in values.items()}, quote_via=quote, safe="/")
