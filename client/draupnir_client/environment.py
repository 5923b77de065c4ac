"""The PG* variables that connect libpq to an instance, and the shell line that sets them; pure."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Mapping

from draupnir_client.credentials import CredentialFiles
from draupnir_client.errors import BadAnswer, ConfigError
from draupnir_client.models import Instance

# Other variables that change how libpq connects (its manual, "Environment Variables").
MISLEADING = (
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGHOSTADDR",
    "PGREQUIREAUTH",
    "PGREQUIRESSL",
    "PGCHANNELBINDING",
    "PGGSSENCMODE",
    "PGSSLCERTMODE",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLNEGOTIATION",
    "PGTARGETSESSIONATTRS",
    "PGLOADBALANCEHOSTS",
)


def variables(instance: Instance, files: CredentialFiles, database: str) -> dict[str, str]:
    """Return the variables for libpq. Raises BadAnswer if libpq would not parse the server's host as one TCP host."""
    # libpq treats /… and @… as a unix socket, and a comma as a list of hosts.
    if not re.fullmatch(r"[A-Za-z0-9:][A-Za-z0-9._:-]{0,252}", instance.hostname):
        raise BadAnswer(
            f"The server returned {instance.hostname!r} as the host of instance {instance.id}; that is not a host name."
            " Ask its administrator to check public_hostname in the server's configuration."
        )
    if not 1 <= int(instance.port) <= 65535:
        raise BadAnswer(f"The server returned {instance.port} as the port of instance {instance.id}; check the url.")
    return {
        "PGHOST": instance.hostname,
        "PGPORT": instance.port,
        "PGUSER": "draupnir",
        "PGPASSWORD": "",
        "PGDATABASE": database,
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(files.ca_certificate),
        "PGSSLCERT": str(files.client_certificate),
        "PGSSLKEY": str(files.client_key),
    }


def export_line(values: Mapping[str, str]) -> str:
    """Return the line for `eval $(…)`. Raises ConfigError for a value that the shell would change."""
    return "export " + " ".join(f"{name}={_quote(name, value)}" for name, value in values.items())


def _quote(name: str, value: str) -> str:
    """Quote a value for a shell, for a command substitution that is not quoted.

    The shell splits the line at blanks, and eval joins the pieces with single blanks. The shell also expands *, ? and [
    to file names. Quotes inside the line prevent neither, so values that would change are refused.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ConfigError(f"{name} would be {value!r}, which has control characters in it; choose another value.")
    if "  " in value or any(character in "*?[" for character in value):
        raise ConfigError(
            f"{name} would be {value!r}; the shell would change its blanks or *?[ in `eval $(…)`."
            " Choose another value, or use `draupnir-client psql` or --output json."
        )
    return shlex.quote(value)
