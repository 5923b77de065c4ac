"""The parameters of a connection to an instance, and the PG* variables of libpq for it; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from draupnir_client.credentials import CredentialFiles
from draupnir_client.errors import BadAnswer, ConfigError
from draupnir_client.models import Instance

# Every instance has this role.
DEFAULT_ROLE = "draupnir"
# These variables also change how libpq connects (see its manual, "Environment Variables").
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


@dataclass(frozen=True, slots=True)
class Connection:
    """Address, role, database and credentials for one connection."""

    instance_id: int
    host: str
    port: str
    role: str
    database: str
    files: CredentialFiles


def connection(instance: Instance, role: str, files: CredentialFiles, database: str) -> Connection:
    """Return the connection. Raises BadAnswer if libpq would not parse the server's host as one TCP host."""
    # libpq treats /… and @… as a unix socket, and a comma as a list of hosts.
    if not re.fullmatch(r"[A-Za-z0-9:][A-Za-z0-9._:-]{0,252}", instance.hostname):
        raise BadAnswer(
            f"The server returned {instance.hostname!r} as the host of instance {instance.id}; that is not a host name."
            " Ask its administrator to check public_hostname in the server's configuration."
        )
    if not 1 <= int(instance.port) <= 65535:
        raise BadAnswer(f"The server returned {instance.port} as the port of instance {instance.id}; check the url.")
    return Connection(instance.id, instance.hostname, instance.port, role, database, files)


def variables(reached: Connection) -> dict[str, str]:
    """Return the variables for libpq."""
    return {
        "PGHOST": reached.host,
        "PGPORT": reached.port,
        "PGUSER": reached.role,
        "PGPASSWORD": "",
        "PGDATABASE": reached.database,
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(reached.files.ca_certificate),
        "PGSSLCERT": str(reached.files.client_certificate),
        "PGSSLKEY": key_for_libpq(reached),
    }


def key_for_libpq(reached: Connection) -> str:
    """Return the path of the key. Raises ConfigError if libpq would not parse it as a path."""
    path = str(reached.files.client_key)
    if ":" in path:
        raise ConfigError(
            f"The path of the private key, {path}, contains a colon, and libpq expects an OpenSSL engine before one;"
            " set XDG_CACHE_HOME to a directory without a colon in its path."
        )
    return path
