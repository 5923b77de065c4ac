"""Laws of the image commands."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from draupnir_client import credentials, images
from draupnir_client.urls import parse_url

from .conftest import FakeServer, Run, image, instance

URL = parse_url("http://127.0.0.1:8432")


def working(step: str, activity: str, **progress: object) -> dict[str, object]:
    known = {"step": step, "activity": activity, "done_bytes": None, "total_bytes": None, "seconds": None}
    return image(1, "finalising", progress=known | progress)


def test_images_are_listed_as_a_table(run: Run, server: FakeServer) -> None:
    server.images = {1: image(1), 20: image(20, "awaiting_upload", size_bytes=None, postgres_version=None)}
    result = run("images", "list")
    assert result.stdout == (
        "ID  STATUS           BACKED UP             READY  SIZE    POSTGRES\n"
        "1   ready            2017-05-01T12:00:00Z  yes    1.2 GB  17\n"
        "20  awaiting_upload  2017-05-20T12:00:00Z  no     -       -\n"
    )
    assert (result.exit_code, result.stderr) == (0, "")


def test_canaries_are_the_lines_of_a_file(run: Run, server: FakeServer, tmp_path: Path) -> None:
    canaries = tmp_path / "canaries"
    canaries.write_bytes(b"jane@corp.example\r\n\nline \xe2\x80\xa8 separator\n")
    assert run("images", "create", "now", "-", "--canary-file", str(canaries), given="SELECT 1;").exit_code == 0
    assert server.bodies[-1]["data"]["attributes"]["canaries"] == ["jane@corp.example", "line \u2028 separator"]
    assert run("images", "update", "1", "--canary-file", str(canaries)).exit_code == 0
    assert server.bodies[-1]["data"]["attributes"].keys() == {"canaries"}


def test_an_image_may_keep_residue(run: Run, server: FakeServer) -> None:
    assert run("images", "create", "now", "-", "--keep-residue", given="SELECT 1;").exit_code == 0
    assert server.bodies[-1]["data"]["attributes"]["keep_residue"] is True
    assert run("images", "create", "now", "-", given="SELECT 1;").exit_code == 0
    assert "keep_residue" not in server.bodies[-1]["data"]["attributes"]
    for option, value in (("--keep-residue", True), ("--no-keep-residue", False)):
        assert run("images", "update", "1", option).exit_code == 0
        assert server.bodies[-1]["data"]["attributes"] == {"keep_residue": value}


@pytest.mark.parametrize(("proved", "shown"), [(True, "yes"), (False, "no")])
def test_an_image_shows_whether_it_is_proved(run: Run, server: FakeServer, *, proved: bool, shown: str) -> None:
    server.images = {1: image(1, proved=proved)}
    assert f"Proved:       {shown}\n" in run("images", "show", "1").stdout


@pytest.mark.parametrize("place", ["front", "middle", "end"])
def test_global_options_may_stand_anywhere(run: Run, server: FakeServer, place: str) -> None:
    server.images = {1: image(1)}
    options = ["--output", "json"]
    lines = {"front": [*options, "images", "list"], "middle": ["images", *options, "list"]}
    result = run(*lines.get(place, ["images", "list", *options]))
    assert json.loads(result.stdout) == [image(1)]


def test_an_empty_list_prints_nothing_to_stdout(run: Run) -> None:
    assert run("images", "list").stdout == ""
    assert "No images found" in run("images", "list").stderr
    assert run("images", "list", "--output", "json").stdout == "[]\n"


def test_texts_of_the_server_cannot_control_the_terminal(run: Run, server: FakeServer) -> None:
    evil = "\x1b]0;pwned\x07\u202e"
    server.images = {
        1: image(1, "failed", error={"code": evil, "detail": evil}, anonymisation_script=evil + "\n" + evil)
    }
    server.images[1]["attributes"]["status"] = evil
    for command in (["images", "list"], ["images", "show", "1"], ["images", "finalise", "1"]):
        result = run(*command)
        assert not {"\x1b", "\x07", "\u202e"} & set(result.stdout + result.stderr)


def test_create_sends_the_script_byte_for_byte(run: Run, server: FakeServer, tmp_path: Path) -> None:
    script = tmp_path / "anon.sql"
    script.write_bytes("\\c my_db\r\nUPDATE t SET n = 'ö\t';".encode())
    result = run("images", "create", "2017-05-01T14:00:00+02:00", str(script))
    assert server.bodies == [
        {
            "data": {
                "type": "images",
                "attributes": {
                    "backed_up_at": "2017-05-01T12:00:00Z",
                    "anonymisation_script": "\\c my_db\r\nUPDATE t SET n = 'ö\t';",
                },
            }
        }
    ]
    assert result.stdout.splitlines()[1].startswith("1   awaiting_upload")
    assert "images upload 1" in result.stderr


def test_create_reads_standard_input_and_knows_now(run: Run, server: FakeServer) -> None:
    assert run("images", "create", "--backed-up-at", "now", "-", given="SELECT 1;").exit_code == 0
    assert run("images", "create", "now", "-", given="SELECT 1;").exit_code == 0
    assert [body["data"]["attributes"]["anonymisation_script"] for body in server.bodies] == ["SELECT 1;"] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["yesterday", "-"], "not a time"),
        (["2017-05-01T12:00:00", "-"], "no time zone"),
        (["0001-01-01T00:00:00+05:00", "-"], "out of range"),
        (["now"], "one script"),
        (["now", "-", "extra"], "one script"),
        (["now", "/does/not/exist.sql"], "cannot be read"),
    ],
)
def test_create_refuses_invalid_arguments(run: Run, server: FakeServer, arguments: list[str], words: str) -> None:
    result = run("images", "create", *arguments, given="SELECT 1;")
    assert (result.exit_code, server.asked) == (2, [])
    assert words in result.stderr


def test_a_script_that_is_not_utf8_is_refused_with_the_place(run: Run) -> None:
    result = run("images", "create", "now", "-", given=b"SELECT '\xff'")
    assert "not UTF-8" in result.stderr
    assert "byte 8" in result.stderr


def test_update_sends_only_given_values(run: Run, server: FakeServer) -> None:
    server.images = {1: image(1, "failed")}
    assert run("images", "update", "1", "--script", "-", given="SELECT 2;").exit_code == 0
    assert run("images", "update", "1", "--backed-up-at", "2020-01-01T00:00:00Z").exit_code == 0
    assert [body["data"]["attributes"] for body in server.bodies] == [
        {"anonymisation_script": "SELECT 2;"},
        {"backed_up_at": "2020-01-01T00:00:00Z"},
    ]


def test_finalise_asks_for_an_answer_at_once_and_follows_the_work(run: Run, server: FakeServer) -> None:
    server.images = {1: working("seal", "")}
    server.script = [
        working("extract", "extracting", done_bytes=500_000, total_bytes=1_000_000, seconds=65),
        503,
        working("extract", "extracting", done_bytes=900_000, total_bytes=1_000_000, seconds=66),
        working("finalise", "running the anonymisation script", seconds=70),
        image(1),
    ]
    result = run("images", "finalise", "1")
    assert server.headers[0]["prefer"] == "respond-async"
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].startswith("1   ready")
    assert result.stderr.splitlines() == [
        "Image 1  step 1/5  seal  0:00",
        "Image 1  step 2/5  extracting  [##########----------]  50% of 1.0 MB  1:05",
        "The server does not answer; waiting for it  0:01",
        "Image 1  step 2/5  extracting  [##################--]  90% of 1.0 MB  1:06",
        "Image 1  step 3/5  running the anonymisation script  1:10",
        "Image 1 is ready; create an instance: draupnir-client instances create 1",
    ]


def test_work_that_continues_unchanged_is_reported_every_half_minute(run: Run, server: FakeServer) -> None:
    server.images = {1: working("extract", "extracting")}
    server.script = [*(working("extract", "extracting") for _ in range(200)), image(1)]
    lines = run("images", "finalise", "1").stderr.splitlines()
    assert [line[-4:] for line in lines[:-1]] == ["0:00", "0:30", "1:00", "1:30"]


def test_an_unreachable_server_is_an_error_after_a_minute(run: Run, server: FakeServer) -> None:
    server.images = {1: working("extract", "extracting")}
    server.script = [503] * 1000
    result = run("images", "finalise", "1")
    assert (result.exit_code, result.stdout) == (3, "")
    assert 120 <= 1000 - len(server.script) <= 122


def test_a_failed_image_gives_the_reason_and_the_tail_of_the_log(run: Run, server: FakeServer) -> None:
    server.images = {1: working("finalise", "running the anonymisation script")}
    detail = 'psql:script:3: ERROR:  relation "secrets" does not exist\nLINE 1: DELETE FROM secrets;'
    server.script = [image(1, "failed", error={"code": "script_failed", "detail": detail})]
    result = run("images", "finalise", "1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert detail in result.stderr
    assert "images update 1 --script" in result.stderr


def test_a_failure_that_no_script_caused_does_not_advise_to_correct_the_script(run: Run, server: FakeServer) -> None:
    server.images = {1: working("finalise", "vacuuming and analysing")}
    server.script = [image(1, "failed", error={"code": "backup_damaged", "detail": "No script can help."})]
    result = run("images", "finalise", "1")
    assert "No script can help." in result.stderr
    assert "--script" not in result.stderr


@pytest.mark.parametrize("command", ["show", "finalise"])
def test_an_uploader_sees_the_full_error(run: Run, server: FakeServer, command: str) -> None:
    failed = image(1, "failed", error={"code": "script_failed", "detail": "SQLSTATE 23502 (not_null_violation)"})
    server.images, server.script = {1: failed}, [failed]
    server.error_texts = {1: "DETAIL:  Failing row contains (7, \x1b[2J).\n"}
    result = run("images", command, "1")
    told = result.stdout + result.stderr
    assert "SQLSTATE 23502" in told
    assert "Failing row contains (7, \\x1b[2J)." in told


def test_other_users_see_the_public_error(run: Run, server: FakeServer) -> None:
    server.images = {1: image(1, "failed", error={"code": "script_failed", "detail": "SQLSTATE 23502"})}
    server.error_texts, server.people = {1: "Failing row"}, True
    result = run("images", "show", "1")
    assert result.exit_code == 0
    assert "SQLSTATE 23502" in result.stdout
    assert "Failing row" not in result.stdout


def test_the_tables_that_triggers_wrote_to_are_shown(run: Run, server: FakeServer) -> None:
    server.images = {1: image(1, tables_written_by_triggers=["my_db.audit.log", "my_db.public.history"]), 2: image(2)}
    assert "my_db.audit.log, my_db.public.history" in run("images", "show", "1").stdout
    assert "triggers" not in run("images", "show", "2").stdout


def test_the_settings_of_its_instances_are_shown(run: Run, server: FakeServer) -> None:
    server.images = {1: image(1, settings={"work_mem": "64MB", "datestyle": "German, DMY"}), 2: image(2, settings={})}
    assert "Settings:\n    datestyle=German, DMY\n    work_mem=64MB\n" in run("images", "show", "1").stdout
    assert "Settings" not in run("images", "show", "2").stdout


ROW = {
    "code": "file_dropped",
    "database": "",
    "object": "x\x1b[2J.bak",
    "detail": "Dropped.",
    "remedy": "Nothing.",
}


def test_the_report_is_shown_to_people_and_programs(run: Run, server: FakeServer) -> None:
    server.images, server.reports = {1: image(1), 2: image(2)}, {1: [ROW], 2: []}
    shown = run("images", "show", "1", "--report").stdout
    assert all(text in shown for text in ("file_dropped", "x\\x1b[2J.bak", "Dropped.", "Nothing."))
    assert json.loads(run("--output", "json", "images", "show", "1", "--report").stdout) == [ROW]
    assert "no rows" in run("images", "show", "2", "--report").stderr
    assert run("images", "show", "3", "--report").exit_code == 5, "not found"


def test_a_finalise_mentions_a_report_that_has_rows(run: Run, server: FakeServer) -> None:
    server.images, server.reports = {1: image(1), 2: image(2)}, {1: [ROW], 2: []}
    assert "images show 1 --report" in run("images", "finalise", "1").stderr
    assert "--report" not in run("images", "finalise", "2").stderr


@pytest.mark.parametrize("status", ["awaiting_upload", "destroying"])
def test_an_image_that_did_not_become_ready_is_a_failure(run: Run, server: FakeServer, status: str) -> None:
    server.images = {1: working("seal", "")}
    server.script = [image(1, status)]
    assert run("images", "finalise", "1").exit_code == 1


def test_no_wait_returns_at_once(run: Run, server: FakeServer) -> None:
    server.images = {1: working("seal", "")}
    result = run("images", "finalise", "1", "--no-wait", "--output", "json")
    assert json.loads(result.stdout)["attributes"]["status"] == "finalising"
    assert server.asked == ["POST /images/1/done"]


def test_destroy_takes_several_ids_and_continues_after_a_refusal(run: Run, server: FakeServer) -> None:
    server.images = {number: image(number) for number in (1, 2, 3)}
    server.instances = {1: instance(1, image_id=2)}
    result = run("images", "destroy", "1", "2", "9", "3", "3")
    assert (result.exit_code, list(server.images)) == (6, [2])
    assert result.stderr.count("is destroyed") == 2
    assert "image 2" in result.stderr
    assert "image 9" in result.stderr


def test_cascade_removes_the_certificates_of_the_instances_too(run: Run, server: FakeServer) -> None:
    server.images = {1: image(1)}
    server.instances = {1: instance(1, image_id=1), 2: instance(2, image_id=5)}
    for number in server.instances:
        run("env", str(number))
    assert run("images", "destroy", "1", "--cascade").exit_code == 0
    assert server.asked[-1] == "DELETE /images/1?cascade=true"
    assert not credentials.directory(URL, 1).exists()
    assert credentials.directory(URL, 2).exists()


@pytest.fixture
def scp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide a program named scp that records its arguments, and exits with the code in the file `status`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "scp"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{folder}/said\nexit $(cat {folder}/status)\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (folder / "status").write_text("0")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_upload_runs_the_scp_of_the_brief(run: Run, server: FakeServer, scp: Path, tmp_path: Path) -> None:
    server.images = {1: image(1, "awaiting_upload")}
    backup, key = tmp_path / "db_backup.tar.gz", tmp_path / "key.pem"
    backup.write_text("")
    key.write_text("")
    result = run("--url", "https://my-draupnir.tld:8443", "images", "upload", "1", str(backup), "-i", str(key))
    assert result.exit_code == 0
    expected = ["-i", str(key), "--", str(backup), "upload@my-draupnir.tld:/draupnir/image_uploads/1"]
    assert (scp / "said").read_text().splitlines() == expected
    assert "images finalise 1" in result.stderr


def test_no_file_name_is_an_option_or_a_host_to_scp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "host:data").mkdir()
    arguments = images.upload_arguments(7, ("-oProxyCommand=x", "host:data"), None, "::1")
    assert arguments == [
        "scp",
        "-r",
        "--",
        f"{tmp_path}/-oProxyCommand=x",
        f"{tmp_path}/host:data",
        "upload@[::1]:/draupnir/image_uploads/7",
    ]


def test_a_failed_upload_is_a_failure(run: Run, server: FakeServer, scp: Path) -> None:
    server.images = {1: image(1, "awaiting_upload")}
    (scp / "status").write_text("1")
    result = run("images", "upload", "1", "/etc/hostname", "--host", "other.tld")
    assert result.exit_code == 1
    assert "upload@other.tld:/draupnir/image_uploads/1" in (scp / "said").read_text()
    assert "draupnir upload-key add" in result.stderr


def test_an_image_that_takes_no_upload_is_reported_before_scp_starts(run: Run, server: FakeServer, scp: Path) -> None:
    server.images = {1: image(1)}
    result = run("images", "upload", "1", "/etc/hostname")
    assert result.exit_code == 1
    assert "Image 1 is ready and accepts no upload" in result.stderr
    assert not (scp / "said").exists()


def test_without_scp_the_package_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run("images", "upload", "1", "/etc/hostname")
    assert result.exit_code == 1
    assert "openssh-client" in result.stderr


def test_show_prints_all_attributes(run: Run, server: FakeServer) -> None:
    server.images = {1: image(1, "failed", error={"code": "script_failed", "detail": "line one\nline two"})}
    assert run("images", "show", "1").stdout.splitlines() == [
        "ID:           1",
        "Status:       failed",
        "Error:",
        "    line one",
        "    line two",
        "Backed up at: 2017-05-01T12:00:00Z",
        "Created at:   2017-05-01T15:00:00Z",
        "Updated at:   2017-05-01T15:00:00Z",
        "Postgres:     17",
        "Size:         1.2 GB",
        "Anonymisation script:",
        "    \\c my_db",
        "    DELETE FROM secret_tokens;",
    ]
