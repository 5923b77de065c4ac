"""Reports the changes of finalising to the data: links to production, code that runs uncalled, rights beyond SQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from draupnir_helper import walls
from draupnir_helper.jobs import catalogs
from draupnir_helper.jobs.clusters import Cluster, array
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.sessions import in_each

_SQL = Path(__file__).with_name("sql")
# Each code has a detail and a remedy.
_TEXTS = {
    "columns_dropped_before": (
        "Columns of the tables were dropped before the backup, and their values may still be in the files.",
        "Add VACUUM FULL of the tables to the script, or run it at the source before the backup.",
    ),
    "connection_limit_removed": (
        "The database had CONNECTION LIMIT 0. It accepts connections in an instance.",
        "",
    ),
    "database_dropped": (
        "DROP DATABASE was interrupted at the source, so the database was dropped.",
        "",
    ),
    "database_opened": (
        "At the source no ordinary role could connect to the database. Users of an instance can.",
        "",
    ),
    "event_trigger_disabled": (
        "The event trigger is disabled, because its function would run as a superuser.",
        "",
    ),
    "foreign_table_dropped": (
        "The foreign table is dropped, because it reads a file or a program of the server.",
        "If the application needs the rows, copy them into a table at the source.",
    ),
    "function_closed": (
        "Only the superuser may call the function, because it can run code with more rights than SQL gives.",
        "If its extension is not installed on the server, install it, and finalise a new image of the backup.",
    ),
    "function_limited": (
        "The function runs without any rights, because Postgres itself may call it.",
        "If the function needs its owner's rights, move it out of the schema pg_catalog at the source.",
    ),
    "grant_removed": (
        "Grants on the object are removed, because it reaches beyond SQL or shows data for superusers only.",
        "Grant the role pg_monitor or pg_read_all_data in the script, if one of them is enough.",
    ),
    "owner_changed": (
        "Objects of the predefined role belong to draupnir, because nobody can act as that role in an instance.",
        "To give them to another role, change their owner at the source or in the script.",
    ),
    "prepared_transaction_dropped": (
        "The prepared transaction is rolled back.",
        "If its changes are needed, run COMMIT PREPARED at the source before the backup.",
    ),
    "role_limited": (
        "The role lost {}.",
        "No role of an instance has this right. If pg_monitor or pg_read_all_data is enough, grant it in the script.",
    ),
    "role_setting_dropped": (
        "The setting of a role or a database is dropped, because it decides on access, libraries or replication.",
        "",
    ),
    "subscription_dropped": (
        "The subscription is dropped, so that no instance replicates from production.",
        "",
    ),
    "superuser_demoted": (
        "The role is not a superuser in the image, so it may do only what is granted to it.",
        "Sign in as draupnir, or let the script grant what the role needs. If the role creates extensions, add them to "
        "trusted_extensions in /etc/draupnir/config.toml and restart draupnir-helper.",
    ),
    "unlogged_table_empty": (
        "The unlogged table is empty, because neither a base backup nor recovery after a crash contains its rows.",
        "Copy the files of a server that was stopped cleanly, or fill the table in the script.",
    ),
    "user_mapping_dropped": (
        "The user mapping is dropped with its password for a foreign server.",
        "If the foreign server may be used, create the user mapping in a direct instance. Others reach no network.",
    ),
}
# draupnir is subject to policies, too, and nobody can grant BYPASSRLS.
_POLICY = "Let the script create a policy for the role on each table: CREATE POLICY ... ON ... TO ... USING (true)."


def report_cluster(cluster: Cluster, rows: Rows) -> None:
    """Add a row for each role, setting and database that the job changes."""
    files = (_SQL / "catalog_rules.sql", _SQL / "cluster_changes.sql")
    add(cluster.run_files("template1", *files, names=array(walls.names())), "", rows)


def report_databases(cluster: Cluster, databases: Iterable[str], rows: Rows) -> None:
    """Add a row for each object in a database that the job removes, disables or limits."""
    names = list(databases)
    files = (_SQL / "catalog_rules.sql", _SQL / "database_changes.sql")
    restricted = array(catalogs.permitted(cluster.major))
    found = in_each(names, lambda database: cluster.run_files(database, *files, restricted=restricted))
    for database, lines in zip(names, found, strict=True):
        add(lines, database, rows)


def report_functions(
    functions: Mapping[str, Sequence[catalogs.Function]], verdicts: Mapping[str, catalogs.Verdict], rows: Rows
) -> None:
    """Add a row for each function of the data that loses rights."""
    for database, listed in functions.items():
        verdict = verdicts[database]
        for code, oids in (("function_closed", set(verdict.closed)), ("function_limited", set(verdict.powerless))):
            detail, remedy = _TEXTS[code]
            for each in listed:
                if each.oid in oids:
                    name = f"{each.schema}.{each.name}({each.arguments})"
                    rows.add(code, detail, database=database, object=name, remedy=remedy)


def add(lines: Iterable[str], database: str, rows: Rows) -> None:
    """Add a row for each line of JSON that our SQL printed."""
    for change in map(json.loads, filter(None, lines)):
        detail, remedy = _TEXTS[change["code"]]
        where = {"database": change.get("database", database), "object": change.get("object", "")}
        what = change.get("what", "")
        rows.add(change["code"], detail.format(what), remedy=_POLICY if "BYPASSRLS" in what else remedy, **where)
