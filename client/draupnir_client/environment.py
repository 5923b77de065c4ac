"""The PG* variables that connect libpq to an instance, and the shell line that sets them; pure."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Mapping

from draupnir_client.credentials import CredentialFiles
from draupnir_client.errors import BadAnswer, ConfigError
from draupnir_client.models import Instance

# What libpq would follow instead of, or on top of, the variables set here (its manual, "Environment Variables").
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
    """Return what libpq needs; raises BadAnswer if the server's part could mean anything else to it than a TCP host."""
    # libpq takes /… and @… for a unix socket, and a comma for a list of hosts.
    if not re.fullmatch(r"[A-Za-z0-9:][A-Za-z0-9._:-]{0,252}", instance.hostname):
        raise BadAnswer(
            f"The server gives {instance.hostname!r} as the host of instance {instance.id}, which is no host name;"
            " its administrator should check public_hostname in the server's configuration."
        )
    if not 1 <= int(instance.port) <= 65535:
        raise BadAnswer(f"The server gives {instance.port} as the port of instance {instance.id}; check the url.")
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
    """Return the one line for `eval $(…)`; raises ConfigError for a value that would not come through whole."""
    return "export " + " ".join(f"{name}={_quote(name, value)}" for name, value in values.items())


def _quote(name: str, value: str) -> str:
    """Quote for a shell, also when the substitution itself stands unquoted.

    The shell splits such a line at blanks, and eval joins it again with single ones; and it takes *, ? and [ in the
    pieces for file names. Quotes inside the line do not help against either, so what they would change is refused.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ConfigError(f"{name} would be {value!r}, which has control characters in it; choose another value.")
    if "  " in value or any(character in "*?[" for character in value):
        raise ConfigError(
            f"{name} would be {value!r}, whose blanks or *?[ the shell would change in `eval $(…)`;"
            " choose another value, or use `draupnir-client psql` or --output json."
        )
    return shlex.quote(value)
