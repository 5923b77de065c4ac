"""Returns the settings on the command line of every server, by major; pure.

An uploaded postgresql.auto.conf overrides the configuration file, and the command line overrides both. So it has all
settings for authentication and listening, and for libraries, commands and servers that Postgres would use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

PGDATA = "/srv/pgdata"  # the data directory as each sandbox sees it

# Each row has a name, a value, the first major that knows the setting, and the last one.
_FIXED: tuple[tuple[str, str, int, int], ...] = (
    ("allow_alter_system", "off", 17, 99),
    ("archive_cleanup_command", "", 12, 99),
    ("archive_command", "", 12, 99),
    ("archive_library", "", 15, 99),
    ("archive_mode", "off", 12, 99),
    ("bonjour", "off", 12, 99),
    ("bonjour_name", "", 12, 99),
    ("data_directory", PGDATA, 12, 99),
    ("db_user_namespace", "off", 12, 16),
    ("dynamic_library_path", "$libdir", 12, 99),
    # This is a second defence, because finalise disables every event trigger. Their functions belong to draupnir, and
    # the scripts of trusted extensions would call them as the bootstrap superuser.
    ("event_triggers", "off", 17, 99),
    ("extension_control_path", "$system", 18, 99),
    # With an empty name Postgres logs an error at each start; each sandbox has its own /tmp.
    ("external_pid_file", "/tmp/postmaster.pid", 12, 99),  # noqa: S108
    ("gss_accept_delegation", "off", 16, 99),
    ("io_method", "worker", 18, 99),  # io_uring is outside the system call filter
    # The sandbox allows no memory that is writable and executable. With a provider that is not installed, a query under
    # SET jit = on runs without JIT instead of failing.
    ("jit", "off", 12, 99),
    ("jit_provider", "none", 12, 99),
    ("krb_caseins_users", "off", 12, 99),
    ("krb_server_keyfile", "", 12, 99),
    ("local_preload_libraries", "", 12, 99),
    ("log_destination", "stderr", 12, 99),
    ("log_hostname", "off", 12, 99),
    ("logging_collector", "off", 12, 99),
    ("max_active_replication_origins", "0", 18, 99),
    ("max_logical_replication_workers", "0", 12, 99),
    ("max_replication_slots", "0", 12, 99),
    ("max_wal_senders", "0", 12, 99),
    ("oauth_validator_libraries", "", 18, 99),
    ("pre_auth_delay", "0", 12, 99),
    ("primary_conninfo", "", 12, 99),
    ("primary_slot_name", "", 12, 99),
    ("promote_trigger_file", "", 12, 15),
    ("recovery_end_command", "", 12, 99),
    ("restore_command", "", 12, 99),
    ("session_preload_libraries", "", 12, 99),
    ("ssl_ciphers", "HIGH:MEDIUM:+3DES:!aNULL", 12, 99),
    ("ssl_crl_dir", "", 14, 99),
    ("ssl_crl_file", "", 12, 99),
    ("ssl_dh_params_file", "", 12, 99),
    ("ssl_ecdh_curve", "prime256v1", 12, 17),
    ("ssl_groups", "X25519:prime256v1", 18, 99),
    ("ssl_max_protocol_version", "", 12, 99),
    ("ssl_passphrase_command", "", 12, 99),
    ("ssl_passphrase_command_supports_reload", "off", 12, 99),
    ("ssl_prefer_server_ciphers", "on", 12, 99),
    ("ssl_tls13_ciphers", "", 18, 99),
    ("summarize_wal", "off", 17, 99),
    ("sync_replication_slots", "off", 17, 99),
    ("synchronized_standby_slots", "", 17, 99),
    ("synchronous_standby_names", "", 12, 99),  # otherwise each commit would wait for a standby
    ("unix_socket_group", "", 12, 99),
    ("unix_socket_permissions", "0700", 12, 99),
    ("wal_level", "minimal", 12, 99),
)

# The values of these settings differ between servers. The configuration file has them, too.
_OWN = (
    *("hba_file", "ident_file", "authentication_timeout"),
    *("listen_addresses", "port", "unix_socket_directories"),
    *("ssl", "ssl_min_protocol_version", "ssl_ca_file", "ssl_cert_file", "ssl_key_file"),
    *("autovacuum", "log_line_prefix", "restart_after_crash"),
    *("max_active_replication_origins", "max_replication_slots"),
)

# Settings that sessions of the job override, because values for a role or a database override the command line. The
# values stay in the data.
_SESSION: tuple[tuple[str, str, int], ...] = (
    ("event_triggers", "off", 17),
    ("session_preload_libraries", "", 12),
    ("local_preload_libraries", "", 12),
    ("session_replication_role", "origin", 12),
    ("role", "none", 12),
    ("default_transaction_read_only", "off", 12),
    ("default_transaction_isolation", "read committed", 12),
    ("default_table_access_method", "heap", 12),
    ("default_tablespace", "", 12),
    ("temp_tablespaces", "", 12),
    ("temp_file_limit", "-1", 12),
    ("exit_on_error", "off", 12),
    ("quote_all_identifiers", "off", 12),  # the report names objects
    ("lc_messages", "C", 12),  # failures.py reads the messages
    ("track_counts", "on", 12),  # scripts.py counts rollbacks
    ("vacuum_cost_delay", "0", 12),
    ("statement_timeout", "0", 12),
    ("lock_timeout", "0", 12),
    ("idle_in_transaction_session_timeout", "0", 12),
    ("idle_session_timeout", "0", 14),
    ("transaction_timeout", "0", 17),
)

# finalise deletes these settings from pg_db_role_setting, too.
SESSION_ONLY = ("session_replication_role", "allow_system_table_mods", "session_authorization")


def on_command_line(major: int, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings, name → value, with the server's own `settings`."""
    fixed = {name: value for name, value, since, until in _FIXED if since <= major <= until}
    return fixed | {name: settings[name] for name in _OWN if name in settings}


def of_session(major: int) -> dict[str, str]:
    """Return the settings of our own sessions, name → value."""
    return {name: value for name, value, since in _SESSION if major >= since}


def session_options(major: int) -> Iterator[str]:
    """Yield the options of libpq's PGOPTIONS for each session of the job."""
    for name, value in of_session(major).items():
        escaped = value.replace(" ", r"\ ")
        yield f"-c {name}={escaped}"


def names() -> list[str]:
    """Return all settings, of any major, that must not be set for a role or a database."""
    return sorted({name for name, *_ in _FIXED} | set(SESSION_ONLY) | set(_OWN))
