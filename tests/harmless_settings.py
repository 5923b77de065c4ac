"""Server settings that an uploaded postgresql.auto.conf may change without risk, and why.

They affect neither authentication, nor where Postgres listens, nor what it loads, runs or connects to. At worst the
instances of that image are slow, do not start, or lose their own data.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from draupnir_helper import postgres
from tests.postgres import give_away, unprivileged

_GROUPS: dict[str, str] = {
    "sizes and limits of memory, which MemoryMax= of the unit bounds": """
        autovacuum_work_mem commit_timestamp_buffers huge_page_size huge_pages max_connections max_files_per_process
        max_locks_per_transaction max_notify_queue_pages max_pred_locks_per_page max_pred_locks_per_relation
        max_pred_locks_per_transaction max_prepared_transactions max_worker_processes min_dynamic_shared_memory
        multixact_member_buffers multixact_offset_buffers notify_buffers reserved_connections serializable_buffers
        shared_buffers subtransaction_buffers superuser_reserved_connections track_activity_query_size
        transaction_buffers wal_buffers wal_decode_buffer_size io_max_concurrency
        io_max_combine_limit io_workers autovacuum_worker_slots""",
    "how the server's own processes are paced": """
        archive_timeout autovacuum autovacuum_analyze_scale_factor autovacuum_analyze_threshold
        autovacuum_freeze_max_age autovacuum_max_workers autovacuum_multixact_freeze_max_age autovacuum_naptime
        autovacuum_vacuum_cost_delay autovacuum_vacuum_cost_limit autovacuum_vacuum_insert_scale_factor
        autovacuum_vacuum_insert_threshold autovacuum_vacuum_max_threshold autovacuum_vacuum_scale_factor
        autovacuum_vacuum_threshold bgwriter_delay bgwriter_flush_after bgwriter_lru_maxpages bgwriter_lru_multiplier
        checkpoint_completion_target checkpoint_flush_after checkpoint_timeout checkpoint_warning old_snapshot_threshold
        vacuum_defer_cleanup_age wal_writer_delay wal_writer_flush_after""",
    "how files are written, which is the image's own risk": """
        data_sync_retry debug_io_direct dynamic_shared_memory_type file_extend_method file_copy_method fsync
        full_page_writes ignore_invalid_pages max_wal_size min_wal_size recovery_init_sync_method
        recovery_prefetch remove_temp_files_after_crash restart_after_crash send_abort_for_crash send_abort_for_kill
        shared_memory_type track_commit_timestamp wal_keep_size wal_log_hints wal_summary_keep_time wal_sync_method""",
    "standbys and replication, which need senders, receivers and a signal file": """
        hot_standby hot_standby_feedback idle_replication_slot_timeout max_parallel_apply_workers_per_subscription
        max_slot_wal_keep_size max_standby_archive_delay max_standby_streaming_delay max_sync_workers_per_subscription
        recovery_min_apply_delay recovery_target recovery_target_action recovery_target_inclusive recovery_target_lsn
        recovery_target_name recovery_target_time recovery_target_timeline recovery_target_xid
        wal_receiver_create_temp_slot wal_receiver_status_interval wal_receiver_timeout wal_retrieve_retry_interval""",
    "what the log says, on stderr": """
        cluster_name log_autovacuum_min_duration log_checkpoints log_line_prefix log_recovery_conflict_waits
        log_startup_progress_interval log_timezone
        md5_password_warnings trace_connection_negotiation trace_recovery_messages""",
    "destinations of the log that log_destination and logging_collector switch off": """
        event_source log_directory log_file_mode log_filename log_rotation_age log_rotation_size
        log_truncate_on_rotation syslog_facility syslog_ident syslog_sequence_numbers syslog_split_messages""",
}
HARMLESS = {name for names in _GROUPS.values() for name in names.split()}

_QUERY = "SELECT name FROM pg_settings WHERE context IN ('postmaster', 'sighup') AND name <> 'config_file';\n"


def server_settings(major: int) -> set[str]:
    """Return the settings of that major that a configuration file can set, from a new cluster."""
    with tempfile.TemporaryDirectory() as directory:
        give_away(Path(directory))
        options = {"capture_output": True, "text": True, "check": True, "cwd": "/"}
        initdb = [postgres.binary(major, "initdb"), "-N", "-A", "trust", "-D", f"{directory}/data"]
        subprocess.run(initdb, **options, **unprivileged())  # type: ignore[call-overload]
        server = [postgres.binary(major, "postgres"), "--single", "-D", f"{directory}/data", "template1"]
        said = subprocess.run(server, input=_QUERY, **options, **unprivileged()).stdout  # type: ignore[call-overload]
    return {line.split('"')[1] for line in said.splitlines() if 'name = "' in line}


def unguarded(major: int) -> set[str]:
    """Return settings that are neither on the command line of an instance nor in the list above."""
    command = postgres.command(major, "/conf", postgres.instance_settings("/conf"), [])
    walls = {part.partition("=")[0] for part in command if "=" in part}
    return server_settings(major) - walls - HARMLESS
