"""What Postgres is started with: pure texts and argument lists, by major version; touches nothing.

Two layers. The configuration files lie outside the data directory, owned by root. What an uploaded
postgresql.auto.conf could still turn against us stands on the command line, the only layer that beats it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

BINARIES = Path("/usr/lib/postgresql")
OLDEST_MAJOR = 12
PGDATA = "/srv/pgdata"  # where a sandbox shows its one data directory
PORT = 5432
ROLE = "draupnir"

# Settings that could reach out, run commands or load code; name → value, with the first major that knows it.
_NEUTRAL: Sequence[tuple[str, str, int]] = (
    ("allow_alter_system", "off", 17),
    ("archive_cleanup_command", "", 12),
    ("archive_command", "", 12),
    ("archive_library", "", 15),
    ("archive_mode", "off", 12),
    ("dynamic_library_path", "$libdir", 12),
    ("io_method", "worker", 18),  # io_uring is outside the system call filter
    ("jit", "off", 12),  # writable and executable memory is outside the sandbox
    ("local_preload_libraries", "", 12),
    ("log_destination", "stderr", 12),
    ("logging_collector", "off", 12),
    ("max_logical_replication_workers", "0", 12),
    ("max_replication_slots", "0", 12),
    ("max_wal_senders", "0", 12),
    ("primary_conninfo", "", 12),
    ("recovery_end_command", "", 12),
    ("restore_command", "", 12),
    ("session_preload_libraries", "", 12),
    ("ssl_passphrase_command", "", 12),
    ("wal_level", "minimal", 12),
)

# Throw-away copies on a copy-on-write disk: new WAL files cost no more than recycled ones.
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
    # A client that connects and says nothing keeps the instance awake for as long.
    "authentication_timeout": "30s",
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

# Nothing of a job that is cut short is ever used, so it need not survive a crash.
_FINALISE = {
    "listen_addresses": "",
    "max_connections": "40",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    # Whatever of the script a crash may have lost would go unnoticed.
    "restart_after_crash": "off",
    "log_line_prefix": "%e ",  # the SQLSTATE, all that is published of a failure
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
}


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _text(settings: Mapping[str, str]) -> str:
    return "".join(f"{name} = {_quoted(value)}\n" for name, value in sorted(settings.items()))


def binary(major: int, name: str) -> str:
    """The path of a Postgres program of that major, as Debian lays them out."""
    return str(BINARIES / str(major) / "bin" / name)


def installed_majors(root: Path = BINARIES) -> list[int]:
    """The majors whose server is installed and new enough, ascending."""
    found = (int(entry.name) for entry in root.glob("[1-9][0-9]") if (entry / "bin" / "postgres").exists())
    return sorted(major for major in found if major >= OLDEST_MAJOR)


def command(major: int, configuration_file: str, preload_libraries: Sequence[str]) -> list[str]:
    """argv of the server: data directory and configuration file are the sandbox's, neutral settings come last."""
    settings = {name: value for name, value, since in _NEUTRAL if major >= since}
    settings["shared_preload_libraries"] = ",".join(preload_libraries)
    pairs = [part for name, value in sorted(settings.items()) for part in ("-c", f"{name}={value}")]
    return [binary(major, "postgres"), "-D", PGDATA, "-c", f"config_file={configuration_file}", *pairs]


def instance_files(directory: str) -> dict[str, str]:
    """Configuration of an instance, file name → text; `directory` is where its sandbox shows them.

    One role may sign in, over TLS, with a certificate whose common name is the role's.
    """
    settings = _COMMON | _INSTANCE
    settings |= {name: f"{directory}/{settings[name]}" for name in ("ssl_ca_file", "ssl_cert_file", "ssl_key_file")}
    settings |= {"hba_file": f"{directory}/pg_hba.conf", "ident_file": f"{directory}/pg_ident.conf"}
    return {
        "postgresql.conf": _text(settings),
        "pg_hba.conf": f"hostssl all {ROLE} all cert map={ROLE}\nhost all all all reject\n",
        "pg_ident.conf": f"{ROLE} {ROLE} {ROLE}\n",
    }


def finalise_files(directory: str, *, major: int, max_prepared_transactions: int) -> dict[str, str]:
    """Configuration of the finalise job, file name → text: one socket in `directory`, which the job alone can reach."""
    settings = _COMMON | _FINALISE
    settings |= {
        "hba_file": f"{directory}/pg_hba.conf",
        "ident_file": f"{directory}/pg_ident.conf",
        "unix_socket_directories": directory,
        "max_prepared_transactions": str(max_prepared_transactions),
    }
    if major >= 17:
        settings["event_triggers"] = "off"
    return {
        "postgresql.conf": _text(settings),
        "pg_hba.conf": "local all all trust\n",
        "pg_ident.conf": "",
    }
