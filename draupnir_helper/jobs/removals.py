"""Reports what the job removes from the data before the script: links to production, and code that runs uncalled."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from draupnir_helper import walls
from draupnir_helper.jobs.clusters import Cluster
from draupnir_helper.jobs.handover import array
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.sessions import in_each

_SQL = Path(__file__).with_name("sql")
# Each code has a detail and a remedy.
_TEXTS = {
    "event_trigger_disabled": (
        "The event trigger is disabled, because its function would run as a superuser.",
        "",
    ),
    "foreign_table_dropped": (
        "The foreign table is dropped, because it reads a file or a program of the server.",
        "If the application needs the rows, copy them into a table at the source.",
    ),
    "prepared_transaction_dropped": (
        "The prepared transaction is rolled back.",
        "If its changes are needed, run COMMIT PREPARED at the source before the backup.",
    ),
    "role_setting_dropped": (
        "The setting of a role or a database is dropped, because it decides on access, libraries or replication.",
        "",
    ),
    "subscription_dropped": ("The subscription is dropped, so that no instance replicates from production.", ""),
    "superuser_demoted": (
        "The role is not a superuser in the image.",
        "If the role creates extensions, add them to trusted_extensions in /etc/draupnir/config.toml.",
    ),
    "user_mapping_dropped": (
        "The user mapping is dropped with its password for a foreign server.",
        "Create it in a direct instance, if the foreign server may be used. Other instances reach no network.",
    ),
}


def report(cluster: Cluster, databases: Iterable[str], rows: Rows) -> None:
    """Add a row for each object that the job removes or disables."""
    names = list(databases)
    files = (_SQL / "catalog_rules.sql", _SQL / "removals.sql")
    settings = array(walls.names())
    found = in_each(names, lambda database: cluster.run_files(database, *files, names=settings))
    for database, lines in zip(names, found, strict=True):
        for line in filter(None, lines):
            removed = json.loads(line)
            detail, remedy = _TEXTS[removed["code"]]
            shared = removed["code"] in {"superuser_demoted", "role_setting_dropped"}
            rows.add(
                removed["code"], detail, database="" if shared else database, object=removed["object"], remedy=remedy
            )
