"""The command line and files of Postgres implement the two layers, for every major."""

from __future__ import annotations

import pytest

from draupnir_helper import postgres, walls
from tests.harmless_settings import HARMLESS, unguarded


def of_instance(major: int) -> list[str]:
    return postgres.command(major, "/conf", postgres.instance_settings("/conf"), [])


@pytest.mark.parametrize("major", [12, 13, 14, 15, 16, 17, 18])
def test_the_command_line_disables_all_settings_that_reach_out(major: int) -> None:
    command = of_instance(major)
    for name in ("archive_command", "restore_command", "session_preload_libraries", "shared_preload_libraries"):
        assert f"{name}=" in command
    assert "max_logical_replication_workers=0" in command


def test_each_major_gets_only_settings_that_it_supports() -> None:
    assert not [part for part in of_instance(14) if "archive_library" in part or "alter_system" in part]
    assert "allow_alter_system=off" in of_instance(17)


@pytest.mark.parametrize(("any_role", "who"), [(True, "all"), (False, "draupnir")])
def test_roles_log_in_over_tls_with_their_own_certificate_and_superusers_never(any_role: bool, who: str) -> None:
    texts = postgres.instance_files("/conf", None, {}, any_role=any_role)
    assert texts["pg_hba.conf"].splitlines() == [
        "host all +draupnir_superusers all reject",
        f"hostssl all {who} all cert",
        "host all all all reject",
    ]
    assert texts["pg_ident.conf"] == ""
    assert "unix_socket_directories = ''" in texts["postgresql.conf"]
    assert "listen_addresses = '127.0.0.1'" in texts["postgresql.conf"]


def of_finalise(directory: str) -> str:
    settings = postgres.finalise_settings(directory, {"max_prepared_transactions": "5"})
    return postgres.finalise_files(settings)["postgresql.conf"]


def test_the_finalise_server_listens_nowhere_but_in_its_own_directory() -> None:
    text = of_finalise("/tmp/x")
    assert "listen_addresses = ''" in text
    assert "unix_socket_directories = '/tmp/x'" in text
    assert "max_prepared_transactions = '5'" in text


def test_quotes_in_values_cannot_end_them() -> None:
    text = of_finalise("/tmp/it's")
    assert "unix_socket_directories = '/tmp/it''s'" in text


@pytest.mark.parametrize("major", postgres.installed_majors())
def test_every_setting_of_the_server_is_on_the_command_line_or_known_to_be_harmless(major: int) -> None:
    assert unguarded(major) == set()


def test_no_setting_is_both_a_wall_and_harmless() -> None:
    of_finalise_alone = {"autovacuum", "log_line_prefix", "restart_after_crash"}
    assert set(walls.names()) & HARMLESS == of_finalise_alone


@pytest.mark.parametrize("major", [12, 13, 14, 15, 16, 17, 18])
def test_authentication_settings_are_on_the_command_line_and_in_the_file(major: int) -> None:
    command = of_instance(major)
    file = postgres.instance_text("/conf", None, {})
    for name, value in postgres.instance_settings("/conf").items():
        if name in {"hba_file", "ident_file", "listen_addresses", "port", "ssl", "ssl_ca_file", "ssl_key_file"}:
            assert f"{name}={value}" in command
            assert f"{name} = '{value}'" in file


def test_a_session_of_the_job_overrides_what_the_data_set_for_a_role() -> None:
    """A setting of a role overrides the command line, and PGOPTIONS overrides both."""
    assert "-c event_triggers=off" in walls.session_options(17)
    assert "-c event_triggers=off" not in walls.session_options(16)
    assert "-c transaction_timeout=0" in walls.session_options(17)
    assert "-c transaction_timeout=0" not in walls.session_options(16)
    for major in (12, 18):
        assert "-c statement_timeout=0" in walls.session_options(major)
        assert "-c session_preload_libraries=" in walls.session_options(major)


@pytest.mark.parametrize("major", [12, 17, 18])
def test_single_user_mode_ends_at_an_error_whatever_the_settings_of_the_image(major: int) -> None:
    command = postgres.single_user_command(major, "/conf")
    assert command[1] == "--single"
    assert command[-1] == "template1"
    last = dict(part.split("=", 1) for part in command if "=" in part)
    assert (last["exit_on_error"], last["statement_timeout"]) == ("on", "0")
    assert (last["default_transaction_read_only"], last["shared_preload_libraries"]) == ("off", "")
    assert last["config_file"] == "/conf/postgresql.conf"
