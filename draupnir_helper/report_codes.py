"""The codes in the report of an image, each with its meaning. They are stable, because programs compare them.

Must import only the standard library: a job starts faster without pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping

# Keep it sorted. docs/OPERATORS.md has the same table; a test compares them.
CODES: Mapping[str, str] = {
    "analyze_failed": "ANALYZE failed for a table or one of its expressions, so the planner has no statistics of it.",
    "attributes_dropped": "A composite type lost an attribute. Rows may still contain its values.",
    "canaries_absent": "No file of the image contains one of the given canaries.",
    "collation_order": "Rows may violate a constraint or a partition bound that depends on a refreshed collation.",
    "collation_refreshed": "Indexes were rebuilt, because the version of their collation differs on this server.",
    "columns_dropped_before": "Tables lost columns before the backup. Values of these may still be in the files.",
    "connection_limit_removed": "A database had CONNECTION LIMIT 0. It accepts connections in an instance.",
    "database_dropped": "DROP DATABASE was interrupted at the source, so the database was dropped.",
    "database_opened": "No ordinary role of the source could connect to a database. Users of instances can.",
    "dictionary_missing": "The server lacks a file of a text search dictionary. The image fails.",
    "event_trigger_disabled": "An event trigger of the source is disabled in the image.",
    "extension_missing": "An extension is not installed on the server. Its objects are in the image.",
    "file_dropped": "Postgres does not know a file of the upload, so the image does not contain it.",
    "foreign_table_dropped": "A foreign table was dropped, because it reads a file or a program of the server.",
    "function_closed": "A function can run code with more rights than SQL gives. Only the superuser may call it.",
    "function_limited": "A function of the data in the schema pg_catalog runs without any rights.",
    "grant_removed": "Grants on a function or a catalog of Postgres reach beyond SQL. They are removed.",
    "index_invalid": "An index could not be rebuilt after its collation was refreshed. Queries do not use it.",
    "library_missing": "The server lacks a library of an extension or a function. The image fails.",
    "library_not_preloaded": "The source preloads a library, and instances do not.",
    "locale_missing": "The server lacks a locale of a database or a collation. The image fails.",
    "materialized_view_emptied": "A materialized view could not be refreshed after the script. It is empty.",
    "originals_absent": "No file of the image contains one of the sampled values that the script removed.",
    "owner_changed": "Objects of a predefined role, such as pg_monitor, belong to draupnir.",
    "preload_missing": "Instances may not preload the library of an extension, so its functions fail.",
    "preload_required": "The tables of an extension need a library that may not be preloaded. The image fails.",
    "prepared_transaction_dropped": "A prepared transaction of the source was rolled back.",
    "residue_kept": "Values that the script removed may still be in the files, because the image keeps them.",
    "role_limited": "A role lost rights that reach beyond SQL, such as BYPASSRLS or pg_signal_backend.",
    "role_setting_dropped": "A setting of a role or a database was dropped, because it affects access or libraries.",
    "room_missing": "The disk or max_image_bytes leaves no room for the script. The image fails.",
    "room_short": "The disk or max_image_bytes leaves less room for the script than the data take.",
    "settings_carried_over": "Instances have these settings of the source. They change results, plans or time limits.",
    "settings_dropped": "Instances do not have these settings of the source.",
    "settings_refused": "Postgres on this server refuses these settings of the source, such as an unknown locale.",
    "settings_unknown": "The upload lacks a configuration file of the source, so instances lack its settings.",
    "several_databases": "Several databases have tables, so clients connect to postgres unless a name is given.",
    "size_limited": "This server cannot give each instance a size of the source, such as max_connections.",
    "subscription_dropped": "A subscription of the source was dropped.",
    "superuser_demoted": "A superuser of the source is an ordinary role in the image.",
    "tables_rewritten": "Tables that the script changed were rewritten, so that no old row stays in their files.",
    "tablespace_missing": "The upload lacks the files of a tablespace. The image fails.",
    "unlogged_table_empty": "The backup does not contain the rows of an unlogged table.",
    "user_mapping_dropped": "A user mapping of a foreign server was dropped with its password.",
    "values_kept": "A column keeps values that the script removed from another column, as the script declares.",
}
