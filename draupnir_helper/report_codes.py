"""The codes in the report of an image, each with its meaning. They are stable, because programs compare them.

Must import only the standard library: a job starts faster without pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping

# Keep it sorted. docs/OPERATORS.md has the same table; a test compares them.
CODES: Mapping[str, str] = {
    "analyze_failed": "ANALYZE failed for a table or an expression of it; the planner has no statistics of that.",
    "collation_order": "Rows may violate a constraint or partition bound that compares with a refreshed collation.",
    "collation_refreshed": "Indexes were rebuilt, because their collation has another version on the server.",
    "connection_limit_removed": "A database had CONNECTION LIMIT 0; it accepts connections in an instance.",
    "database_dropped": "A database whose DROP DATABASE was interrupted at the source; it was dropped.",
    "dictionary_missing": "A file of a text search dictionary that the server lacks; the image fails.",
    "event_trigger_disabled": "An event trigger of the source; it is disabled in the image.",
    "extension_missing": "An extension that is not installed on the server. Its objects are in the image.",
    "file_dropped": "A file in the data directory that Postgres does not know; the image does not contain it.",
    "foreign_table_dropped": "A foreign table that reads a file or a program of the server; it is dropped.",
    "index_invalid": "An index could not be rebuilt after its collation was refreshed; queries do not use it.",
    "library_missing": "A library of an extension or a function that the server lacks; the image fails.",
    "locale_missing": "A locale of a database or collation that the server lacks; the image fails.",
    "materialized_view_emptied": "A materialized view that could not be refreshed after the script; it is empty.",
    "preload_missing": "An extension whose library is not in shared_preload_libraries, so that its functions fail.",
    "preload_required": "An extension whose tables need its library in shared_preload_libraries; the image fails.",
    "prepared_transaction_dropped": "A prepared transaction of the source; it is rolled back.",
    "role_limited": "A role lost rights that reach beyond SQL, such as BYPASSRLS or pg_signal_backend.",
    "role_setting_dropped": "A setting of a role or a database that decides on access or libraries; it is dropped.",
    "settings_carried_over": "Settings of the source that change answers, plans or time limits; instances have them.",
    "settings_dropped": "Settings of the source that instances do not have.",
    "settings_refused": "Settings of the source that this server's Postgres refuses, such as an unknown locale.",
    "size_limited": "A size of the source, such as max_connections, that this server cannot give to each instance.",
    "subscription_dropped": "A subscription of the source; it is dropped.",
    "superuser_demoted": "A superuser of the source; in the image it is an ordinary role.",
    "tablespace_missing": "A tablespace whose files are not in the upload; the image fails.",
    "user_mapping_dropped": "A user mapping of a foreign server, with its password; it is dropped.",
}
