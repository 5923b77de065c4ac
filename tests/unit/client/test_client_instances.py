"""Laws of the instance commands, of the certificates they keep, and of reaching an instance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from draupnir_client import config, credentials
from draupnir_client.urls import parse_url

from .conftest import CREDENTIALS, TOKEN, FakeServer, Run, image, instance

URL = parse_url("http://127.0.0.1:8432")


def test_create_prints_the_instance_and_how_to_connect(run: Run, server: FakeServer) -> None:
    server.images = {3: image(3)}
    result = run("instances", "create", "3")
    assert result.stdout == (
        "ID  IMAGE  PORT  STATUS   WRITTEN  CREATED               HOST\n"
        "1   3      6543  running  17.2 MB  2017-05-01T16:00:00Z  my-draupnir.tld\n"
    )
    assert "eval $(draupnir-client env 1)" in result.stderr


def test_no_key_is_ever_printed(run: Run, server: FakeServer) -> None:
    server.images = {3: image(3)}
    server.instances = {4: instance(4)}
    for command in (["instances", "create", "3"], ["instances", "show", "4"], ["env", "4"], ["new"]):
        for form in ("table", "json"):
            result = run(*command, "--output", form)
            assert result.exit_code == 0
            assert "KEY" not in result.stdout.replace("PGSSLKEY", "") + result.stderr


def test_env_prints_exactly_one_line(run: Run, server: FakeServer, home: Path) -> None:
    server.instances = {4: instance(4)}
    result = run("env", "4")
    folder = credentials.role_directory(URL, 4, "draupnir")
    assert result.stdout == (
        "export PGHOST=my-draupnir.tld PGPORT=6543 PGUSER=draupnir PGPASSWORD='' PGDATABASE=postgres"
        f" PGSSLMODE=verify-full PGSSLROOTCERT={folder}/ca.crt PGSSLCERT={folder}/client.crt"
        f" PGSSLKEY={folder}/client.key\n"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert folder.is_relative_to(home / ".cache/draupnir/instances")


def test_env_and_psql_connect_as_the_role_asked_for(run: Run, server: FakeServer) -> None:
    server.instances = {4: instance(4)}
    role = "It's a Röle & co"
    values = json.loads(run("env", "4", "--format", "json", "--role", role).stdout)
    assert values["PGUSER"] == role
    assert Path(values["PGSSLKEY"]).parent == credentials.role_directory(URL, 4, role)


def test_the_server_gets_the_bytes_of_a_role_that_is_not_utf_8(run: Run, server: FakeServer) -> None:
    """It answers why nobody can sign in with such a name."""
    server.instances = {4: instance(4)}
    run("env", "4", "--role", "M\udcfcller")
    assert server.asked[-1] == "GET /instances/4?role=M%FCller"


def test_a_server_that_does_not_know_roles_is_named(run: Run, server: FakeServer) -> None:
    server.instances = {4: instance(4)}
    server.knows_roles = False
    result = run("env", "4", "--role", "app")
    assert (result.exit_code, result.stdout) == (6, "")
    assert "too old" in result.stderr


def test_env_prints_json_for_programs(run: Run, server: FakeServer) -> None:
    server.instances = {4: instance(4)}
    values = json.loads(run("env", "4", "--output", "json").stdout)
    assert list(values) == [
        *("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"),
        *("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"),
    ]
    assert Path(values["PGSSLKEY"]).read_text() == CREDENTIALS["client_key"]
    assert Path(values["PGSSLCERT"]).read_text() == CREDENTIALS["client_certificate"]
    assert Path(values["PGSSLROOTCERT"]).read_text() == CREDENTIALS["ca_certificate"]
    assert json.loads(run("env", "4", "--format", "json").stdout) == values


def test_env_and_new_print_the_requested_format(run: Run, server: FakeServer) -> None:
    server.images, server.instances = {3: image(3)}, {4: instance(4)}
    urls = ("postgresql://draupnir@my-draupnir.tld:6543/a%23b?", "jdbc:postgresql://my-draupnir.tld:6543/a%23b?")
    for form, start in zip(("url", "jdbc"), urls, strict=True):
        for command in (["env", "4"], ["new"]):
            result = run(*command, "--format", form, "--database", "a#b")
            assert result.stdout.startswith(start)
            assert result.stdout.count("\n") == 1
    assert "\nPGUSER=draupnir\n" in run("env", "4", "--format", "dotenv").stdout
    assert run("env", "4", "--format", "service").stdout.startswith("[draupnir-4]\nhost=my-draupnir.tld\n")
    assert run("env", "4", "--format", "yaml").exit_code == 2


def test_a_name_that_a_format_cannot_express_prints_nothing(run: Run, server: FakeServer) -> None:
    server.instances = {4: instance(4)}
    for form in ("shell", "dotenv", "service"):
        result = run("env", "4", "--format", form, "--database", "a\nb")
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"The format {form} cannot express" in result.stderr


def test_the_database_is_the_one_asked_for_or_saved_or_of_the_environment_or_with_the_data(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def database() -> str:
        return str(json.loads(run("env", "4", "--format", "json").stdout)["PGDATABASE"])

    server.instances = {4: instance(4)}
    assert database() == "postgres"
    server.instances = {4: instance(4, database="shop")}
    assert database() == "shop"
    monkeypatch.setenv("PGDATABASE", "environment")
    assert database() == "environment"
    config.save(database="saved")
    assert database() == "saved"
    assert json.loads(run("env", "4", "--format", "json", "--database", "x").stdout)["PGDATABASE"] == "x"


def test_the_database_of_another_instance_is_ignored(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that has evaluated `env 4` has the PGDATABASE of instance 4."""
    server.instances = {4: instance(4, database="shop"), 5: instance(5, database="crm"), 6: instance(6)}
    for name, value in json.loads(run("env", "4", "--format", "json").stdout).items():
        monkeypatch.setenv(name, value)
    assert json.loads(run("env", "5", "--format", "json").stdout)["PGDATABASE"] == "crm"
    assert json.loads(run("env", "6", "--format", "json").stdout)["PGDATABASE"] == "shop"


SEVERAL = {
    "code": "several_databases",
    "database": "",
    "object": "",
    "detail": "Several databases have tables: crm, shop.",
    "remedy": "Use --database NAME.",
}


def test_the_choice_of_postgres_among_several_databases_with_data_is_reported(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.images = {3: image(3)}
    server.instances = {4: instance(4, database="postgres"), 5: instance(5, database="shop"), 6: instance(6)}
    warning = f"{SEVERAL['detail']} {SEVERAL['remedy']}"
    assert warning not in run("env", "4").stderr, "the image has no report"
    server.reports = {3: [{**SEVERAL, "code": "superuser_demoted"}]}
    assert warning not in run("env", "4").stderr
    server.reports = {3: [SEVERAL]}
    assert warning in run("env", "4").stderr
    asked = len(server.asked)
    for arguments in (["env", "5"], ["env", "6"], ["env", "4", "--database", "shop"]):
        assert warning not in run(*arguments).stderr
    monkeypatch.setenv("PGDATABASE", "shop")
    assert warning not in run("env", "4").stderr
    assert not any("report" in each for each in server.asked[asked:])


def test_new_and_psql_report_the_choice_of_postgres_too(address: str, server: FakeServer, tmp_path: Path) -> None:
    server.images, server.reports = {3: image(3, database="postgres")}, {3: [SEVERAL]}
    server.instances = {4: instance(4, database="postgres")}
    program = tmp_path / "psql"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert SEVERAL["detail"] in client(address, "new").stderr
    for given, is_reported in (
        ([], True),
        (["-c", "SELECT 1"], True),
        (["shop"], False),
        (["-d", "shop"], False),
        (["--dbname=shop"], False),
    ):
        assert (SEVERAL["detail"] in client(address, "psql", "4", *given, PATH=str(tmp_path)).stderr) is is_reported


@pytest.mark.parametrize("hostname", ["$(touch pwned)", "/tmp", "a\nb"])
def test_env_prints_nothing_when_the_server_is_hostile(run: Run, server: FakeServer, hostname: str) -> None:
    server.instances = {4: instance(4, hostname=hostname)}
    result = run("env", "4")
    assert (result.exit_code, result.stdout) == (1, "")


def test_env_of_an_instance_that_goes_away_is_refused(run: Run, server: FakeServer) -> None:
    server.instances = {4: instance(4, status="destroying")}
    result = run("env", "4")
    assert (result.exit_code, result.stdout) == (6, "")


def test_misleading_variables_are_reported(run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.instances = {4: instance(4)}
    monkeypatch.setenv("PGSERVICE", "production")
    assert "PGSERVICE" in run("env", "4").stderr


def test_an_admin_lists_all_instances_and_connects_to_none_of_others(run: Run, server: FakeServer) -> None:
    server.instances = {4: instance(4), 5: instance(5, owner="ann@corp.example")}
    assert "ann@corp.example" not in run("instances", "list").stdout
    listed = run("instances", "list", "--all").stdout.splitlines()
    assert [line.split()[-1] for line in listed] == ["OWNER", "upload", "ann@corp.example"]
    assert len(json.loads(run("instances", "list", "--all", "--output", "json").stdout)) == 2
    result = run("env", "5")
    assert (result.exit_code, result.stdout) == (6, "")
    assert "ann@corp.example" in result.stderr


def test_an_admin_lists_closed_instances_and_restores_them(run: Run, server: FakeServer) -> None:
    closed = {"status": "closed", "destroy_at": "2017-05-02T16:00:00Z", "owner": "ann@corp.example"}
    server.instances = {number: instance(number, 3, **closed) for number in (4, 5)}
    assert "closed" in run("instances", "list", "--all").stdout
    assert "Destroyed at: 2017-05-02T16:00:00Z" in run("instances", "show", "4").stdout
    result = run("instances", "restore", "4", "6", "5", "--owner", "bob@corp.example")
    assert result.exit_code == 5
    assert "Instance 6 not found" in result.stderr
    assert "Instance 5 is open again, with its data, for bob@corp.example." in result.stderr
    assert "Destroyed at" not in run("instances", "show", "4").stdout


def test_new_takes_the_newest_backup_that_is_ready(run: Run, server: FakeServer) -> None:
    server.images = {
        1: image(1, backed_up_at="2020-01-02T00:00:00Z"),
        2: image(2, backed_up_at="2020-01-01T00:00:00Z"),
        3: image(3, "failed", backed_up_at="2021-01-01T00:00:00Z"),
        4: image(4, backed_up_at="not a time"),
    }
    result = run("new")
    assert result.stdout.startswith("export PGHOST=")
    assert server.instances[1]["attributes"]["image_id"] == 1
    assert "Instance 1 of image 1" in result.stderr


def test_new_without_a_ready_image_makes_nothing(run: Run, server: FakeServer) -> None:
    server.images = {3: image(3, "failed")}
    assert run("new").exit_code == 6
    assert server.instances == {}


def test_destroy_removes_the_certificates(run: Run, server: FakeServer) -> None:
    server.instances = {4: instance(4), 5: instance(5), 6: instance(6)}
    for number in (4, 5, 6):
        run("env", str(number))
    assert run("instances", "destroy", "4", "6").exit_code == 0
    assert list(server.instances) == [5]
    assert [credentials.directory(URL, number).exists() for number in (4, 5, 6)] == [False, True, False]


def test_certificates_of_a_missing_instance_are_removed(run: Run, server: FakeServer) -> None:
    server.instances = {4: instance(4)}
    run("env", "4")
    server.instances.clear()
    assert run("instances", "destroy", "4").exit_code == 5
    assert not credentials.directory(URL, 4).exists()


def test_show_prints_host_and_port(run: Run, server: FakeServer) -> None:
    server.instances = {4: instance(4)}
    assert "Host:         my-draupnir.tld\nPort:         6543\n" in run("instances", "show", "4").stdout


@pytest.mark.parametrize(
    ("attributes", "shown"),
    [
        ({}, "Network:      proxied\nSleeps after: 30m\n"),
        ({"sleep_after": 0, "network": "direct"}, "Network:      direct\nSleeps after: never\n"),
        ({"sleep_after": None, "network": None}, "Network:      -\nSleeps after: -\n"),
    ],
)
def test_show_prints_the_shape(run: Run, server: FakeServer, attributes: dict[str, Any], shown: str) -> None:
    server.instances = {4: instance(4, **attributes)}
    assert shown in run("instances", "show", "4").stdout


def test_show_prints_the_database_and_the_settings(run: Run, server: FakeServer) -> None:
    server.instances = {4: instance(4, database="shop", settings={"work_mem": "64MB"})}
    shown = run("instances", "show", "4").stdout
    assert "Database:     shop\n" in shown
    assert "Settings:\n    work_mem=64MB\n" in shown


def test_show_prints_the_allowlist(run: Run, server: FakeServer) -> None:
    server.instances = {4: instance(4)}
    assert "Allowlist" not in run("instances", "show", "4").stdout
    seen = {"address": "192.0.2.7", "origin": "seen", "expires_at": "2017-05-02T16:00:00Z"}
    server.instances = {4: instance(4, allowed_addresses=[seen])}
    assert "Allowlist:\n    192.0.2.7 until 2017-05-02T16:00:00Z (seen)\n" in run("instances", "show", "4").stdout
    server.instances = {4: instance(4, allowed_addresses=[])}
    assert "Allowlist:    empty\n" in run("instances", "show", "4").stdout


def test_allow_sends_each_address_with_its_lifetime(run: Run, server: FakeServer) -> None:
    server.instances = {4: instance(4)}
    assert run("instances", "allow", "4", "192.0.2.7", "2001:db8::/48", "--for", "8h").exit_code == 0
    assert run("instances", "allow", "4", "192.0.2.8").exit_code == 0
    assert server.asked == ["POST /instances/4/addresses"] * 3
    assert [body["data"]["attributes"] for body in server.bodies] == [
        {"address": "192.0.2.7", "expires_in": 28800},
        {"address": "2001:db8::/48", "expires_in": 28800},
        {"address": "192.0.2.8"},
    ]


def test_disallow_continues_after_a_missing_address(run: Run, server: FakeServer) -> None:
    server.instances, server.addresses = {4: instance(4)}, {"2001:db8::/48"}
    result = run("instances", "disallow", "4", "192.0.2.7", "2001:db8::/48")
    assert result.exit_code != 0
    assert "Instance 4 no longer accepts connections from 2001:db8::/48." in result.stderr
    assert server.asked[-1] == "DELETE /instances/4/addresses?address=2001%3Adb8%3A%3A%2F48"


@pytest.mark.parametrize("command", [["instances", "create", "3"], ["new"]])
@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ([], {}),
        (["--sleep-after", "10m"], {"sleep_after": 600}),
        (["--sleep-after", "never"], {"sleep_after": 0}),
        (["--network", "direct"], {"network": "direct"}),
        (["--superuser"], {"superuser": True}),
        (["--network", "proxied", "--sleep-after", "2h"], {"network": "proxied", "sleep_after": 7200}),
    ],
)
def test_omitted_options_are_left_to_the_server(
    run: Run, server: FakeServer, command: list[str], options: list[str], sent: dict[str, object]
) -> None:
    server.images = {3: image(3)}
    assert run(*command, *options).exit_code == 0
    assert server.bodies[-1]["data"]["attributes"] == {"image_id": 3, **sent}


@pytest.mark.parametrize("options", [["--sleep-after", "soon"], ["--sleep-after", ""], ["--network", "host"]])
def test_an_invalid_shape_creates_nothing(run: Run, server: FakeServer, options: list[str]) -> None:
    server.images = {3: image(3)}
    assert run("instances", "create", "3", *options).exit_code == run("new", *options).exit_code == 2
    assert server.asked == []


def test_an_empty_list_gives_advice(run: Run) -> None:
    result = run("instances", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "draupnir-client new" in result.stderr


def client(address: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "draupnir_client", *arguments],
        env={**os.environ, "DRAUPNIR_URL": address, "DRAUPNIR_TOKEN": TOKEN, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_psql_is_run_in_place_of_the_client(address: str, server: FakeServer, tmp_path: Path) -> None:
    server.instances = {4: instance(4)}
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\necho "$PGHOST $PGPORT $PGSSLMODE ${PGSERVICE-unset}"; printf "<%s>" "$@"; exit 7\n')
    program.chmod(0o755)
    for separator in (["--"], []):
        result = client(
            address,
            "psql",
            "4",
            *separator,
            "-c",
            "select 1",
            "--output",
            "x",
            PATH=str(tmp_path),
            PGSERVICE="production",
        )
        assert result.stdout == "my-draupnir.tld 6543 verify-full unset\n<-c><select 1><--output><x>"
        assert (result.returncode, result.stderr) == (7, "")


def test_without_psql_the_package_is_named(address: str, tmp_path: Path) -> None:
    result = client(address, "psql", "4", PATH=str(tmp_path))
    assert result.returncode == 1
    assert "postgresql-client" in result.stderr


def test_the_lines_of_the_brief_work_in_a_shell(address: str, server: FakeServer, tmp_path: Path) -> None:
    server.images = {3: image(3)}
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\necho "$PGHOST:$PGPORT/$PGDATABASE"; cat "$PGSSLKEY"\n')
    program.chmod(0o755)
    launcher = tmp_path / "draupnir-client"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m draupnir_client "$@"\n')
    launcher.chmod(0o755)
    script = """
        draupnir-client instances create 3
        eval $(draupnir-client env 1)
        psql
        draupnir-client instances destroy 1
    """
    result = subprocess.run(
        ["bash", "-euc", script],
        env={
            **os.environ,
            "DRAUPNIR_URL": address,
            "DRAUPNIR_TOKEN": TOKEN,
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "PGDATABASE": "my db's",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "my-draupnir.tld:6543/my db's\n" + CREDENTIALS["client_key"] in result.stdout
    assert server.instances == {}
