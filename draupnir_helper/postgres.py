"""Command lines and configuration files of Postgres, by major version; pure.

There are two layers. The configuration files are outside the data directory and belong to root. Settings with which an
uploaded postgresql.auto.conf could do harm are also on the command line (walls.py), which overrides that file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from draupnir_helper import ceilings, walls

if TYPE_CHECKING:
    # The jobs import this module, and at run time an import of pydantic would take most of their time.
    from draupnir_helper.wire import Ceiling

BINARIES = Path("/usr/lib/postgresql")
OLDEST_MAJOR = 12
PGDATA = walls.PGDATA
PORT = 5432
ROLE = "draupnir"
SUPERUSERS = "draupnir_superusers"  # no member of this group can sign in
CONFIGURATION_NAME = "postgresql.conf"
JOB_CONNECTIONS = 40

# On a copy-on-write disk new WAL files cost no more than recycled ones.
_COMMON = {
    "cluster_name": "draupnir",
    "dynamic_shared_memory_type": "posix",
    "huge_pages": "off",
    "lc_messages": "C",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "wal_init_zero": "off",
    "wal_recycle": "off",
}

_INSTANCE = {
    "listen_addresses": "127.0.0.1",
    "port": str(PORT),
    # This limits how long a client that connects and sends nothing can keep the instance awake.
    "authentication_timeout": "10s",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "synchronous_commit": "off",
    "log_line_prefix": "%q%u@%d ",
    "ssl": "on",
    "ssl_min_protocol_version": "TLSv1.2",
    "ssl_ca_file": "authority.crt",
    "ssl_cert_file": "server.crt",
    "ssl_key_file": "server.key",
}

# The results of an interrupted job are never used, so they need not survive a crash.
_FINALISE = {
    "listen_addresses": "",
    "port": str(PORT),
    "ssl": "off",
    "max_connections": str(JOB_CONNECTIONS),
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    # A crash could lose parts of the script without an error.
    "restart_after_crash": "off",
    "log_line_prefix": "%e ",  # the SQLSTATE, the only public part of a failure
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
}


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def text(settings: Mapping[str, str]) -> str:
    """Return a configuration file with these settings."""
    return "".join(f"{name} = {_quoted(value)}\n" for name, value in sorted(settings.items()))


def binary(major: int, name: str) -> str:
    """Return Debian's path of a Postgres program of that major."""
    return str(BINARIES / str(major) / "bin" / name)


def library(major: int, name: str) -> Path:
    """Return Debian's path of a library that servers of that major can load."""
    return BINARIES / str(major) / "lib" / f"{name}.so"


def installed_majors(root: Path = BINARIES) -> list[int]:
    """Return the installed and supported majors, ascending."""
    found = (int(entry.name) for entry in root.glob("[1-9][0-9]") if (entry / "bin" / "postgres").exists())
    return sorted(major for major in found if major >= OLDEST_MAJOR)


def command(major: int, directory: str, settings: Mapping[str, str], preload_libraries: Sequence[str]) -> list[str]:
    """Return the command line of a server with these settings and with its files in `directory`."""
    fixed = walls.on_command_line(major, settings)
    fixed |= {
        "config_file": f"{directory}/postgresql.conf",
        "shared_preload_libraries": ",".join(preload_libraries),
    }
    pairs = [part for name, value in sorted(fixed.items()) for part in ("-c", f"{name}={value}")]
    return [binary(major, "postgres"), "-D", PGDATA, *pairs]


def single_user_command(major: int, directory: str) -> list[str]:
    """Return the command line of single-user mode on an instance's data. The first error ends it with a status."""
    server, *options = command(major, directory, instance_settings(directory), [])
    settings = walls.of_session(major) | {"exit_on_error": "on"}
    overriding = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [server, "--single", *options, *overriding, "template1"]


def instance_settings(directory: str) -> dict[str, str]:
    """Return the settings of an instance; `directory` is the path of its files inside its sandbox."""
    settings = _COMMON | _INSTANCE | _access_files(directory)
    return settings | {
        name: f"{directory}/{settings[name]}" for name in ("ssl_ca_file", "ssl_cert_file", "ssl_key_file")
    }


def instance_files(
    directory: str, ceiling: Ceiling | None, parameters: Mapping[str, str], *, any_role: bool
) -> dict[str, str]:
    """Return the configuration of an instance, file name → text.

    A role logs in over TLS, with a certificate whose common name is its own name. Without `any_role` only draupnir may
    log in. The first line rejects superusers, even if they get a role, because finalise puts them into the group.
    """
    who = "all" if any_role else ROLE
    rules = (f"host all +{SUPERUSERS} all reject", f"hostssl all {who} all cert", "host all all all reject")
    return {
        CONFIGURATION_NAME: instance_text(directory, ceiling, parameters),
        "pg_hba.conf": "".join(f"{rule}\n" for rule in rules),
        "pg_ident.conf": "",
    }


def instance_text(directory: str, ceiling: Ceiling | None, parameters: Mapping[str, str]) -> str:
    """Return the settings of an instance as the text of postgresql.conf."""
    return text(instance_settings(directory) | dict(parameters) | ({} if ceiling is None else _below(ceiling)))


def _below(ceiling: Ceiling) -> dict[str, str]:
    """Return the settings for a ceiling: a smaller WAL size, and read-only transactions at the ceiling."""
    settings = {"max_wal_size": f"{ceilings.wal_bytes(ceiling.max_bytes) >> 20}MB"}
    if ceiling.read_only:
        # WAL of deleted data is removed at the next checkpoint.
        settings |= {"default_transaction_read_only": "on", "checkpoint_timeout": "30s"}
    return settings


def finalise_settings(directory: str, sizes: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the finalise job: one socket in `directory`, to which only the job has access."""
    return _COMMON | _FINALISE | _access_files(directory) | {"unix_socket_directories": directory, **sizes}


def finalise_files(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the configuration of the finalise job, file name → text."""
    return {
        "postgresql.conf": text(settings),
        "pg_hba.conf": "local all all trust\n",
        "pg_ident.conf": "",
    }


def _access_files(directory: str) -> dict[str, str]:
    return {"hba_file": f"{directory}/pg_hba.conf", "ident_file": f"{directory}/pg_ident.conf"}
