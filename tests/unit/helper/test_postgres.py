"""What Postgres is started with keeps to the two layers, for every major."""

from __future__ import annotations

import pytest

from draupnir_helper import postgres


@pytest.mark.parametrize("major", [12, 13, 14, 15, 16, 17, 18])
def test_nothing_that_reaches_out_survives_on_the_command_line(major: int) -> None:
    command = postgres.command(major, "/conf/postgresql.conf", [])
    for name in ("archive_command", "restore_command", "session_preload_libraries", "shared_preload_libraries"):
        assert f"{name}=" in command
    assert "max_logical_replication_workers=0" in command


def test_settings_stand_only_where_the_major_knows_them() -> None:
    assert not [part for part in postgres.command(14, "c", []) if "archive_library" in part or "alter_system" in part]
    assert "allow_alter_system=off" in postgres.command(17, "c", [])


def test_one_role_signs_in_over_tls_with_a_certificate_and_nothing_else_does() -> None:
    texts = postgres.instance_files("/conf")
    rules = [line.split() for line in texts["pg_hba.conf"].splitlines()]
    assert rules == [
        ["hostssl", "all", "draupnir", "all", "cert", "map=draupnir"],
        ["host", "all", "all", "all", "reject"],
    ]
    assert "unix_socket_directories = ''" in texts["postgresql.conf"]
    assert "listen_addresses = '127.0.0.1'" in texts["postgresql.conf"]


def test_the_finalise_server_listens_nowhere_but_in_its_own_directory() -> None:
    text = postgres.finalise_files("/tmp/x", major=17, max_prepared_transactions=5)["postgresql.conf"]
    assert "listen_addresses = ''" in text
    assert "unix_socket_directories = '/tmp/x'" in text
    assert "max_prepared_transactions = '5'" in text


def test_quotes_in_values_cannot_end_them() -> None:
    text = postgres.finalise_files("/tmp/it's", major=17, max_prepared_transactions=0)["postgresql.conf"]
    assert "unix_socket_directories = '/tmp/it''s'" in text
