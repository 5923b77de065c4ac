"""The data directory of an upload is found, cleaned and moved to its place, or the upload is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from draupnir_helper import postgres
from draupnir_helper.jobs import data_directories, extract, uploads
from draupnir_helper.jobs.reports import JobError, Reporter

pytestmark = pytest.mark.usefixtures("any_room")

MINIMAL = {"PG_VERSION": b"17\n", "global/pg_control": b"control"}


@pytest.fixture(autouse=True)
def _sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seal").mkdir()
    (tmp_path / "pgdata").mkdir()
    monkeypatch.setattr(extract, "SEAL", tmp_path / "seal")
    monkeypatch.setattr(extract, "TARGET", tmp_path / "pgdata")
    monkeypatch.setattr(postgres, "installed_majors", lambda: [15, 17])


def write_tar(path: Path, content: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def write_tree(directory: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


@pytest.mark.parametrize("prefix", ["", "./", "main/", "./main/", "17/"])
def test_the_data_directory_may_be_at_the_top_or_in_one_folder(tmp_path: Path, prefix: str) -> None:
    write_tar(tmp_path / "seal/backup.tar", {prefix + name: data for name, data in MINIMAL.items()})
    report = extract.main(Reporter(extract.TARGET))
    assert report.postgres_major == 17
    assert (tmp_path / "pgdata/global/pg_control").read_bytes() == b"control"
    assert not (tmp_path / "pgdata/.incoming").exists()


@pytest.mark.parametrize("prefix", ["", "main/"])
def test_an_unpacked_directory_is_accepted(tmp_path: Path, prefix: str) -> None:
    write_tree(tmp_path / "seal", {prefix + name: data for name, data in MINIMAL.items()})
    extract.main(Reporter(extract.TARGET))
    assert (tmp_path / "pgdata/PG_VERSION").read_bytes() == b"17\n"
    assert (tmp_path / "seal" / prefix / "PG_VERSION").exists(), "the seal is only read"


def test_the_archives_of_a_base_backup_belong_together(tmp_path: Path) -> None:
    write_tar(tmp_path / "seal/base.tar", MINIMAL)
    write_tar(tmp_path / "seal/pg_wal.tar", {"000000010000000000000001": b"wal"})
    extract.main(Reporter(extract.TARGET))
    assert (tmp_path / "pgdata/pg_wal/000000010000000000000001").read_bytes() == b"wal"


LEFTOVERS = [
    "postgresql.conf", "pg_hba.conf", "pg_ident.conf", "recovery.conf", "conf.d.conf", "recovery.signal",
    "standby.signal", "postmaster.pid", "postmaster.opts", "backup_label.old", "current_logfiles", "server.key",
    "root.crt", "log/postgresql.log", "pg_log/old.log", "pg_replslot/slot/state", "pg_stat/pgstat.stat",
    "pg_stat_tmp/pgss_query_texts.stat", "backup_manifest",
]  # fmt: skip


@pytest.mark.parametrize("name", LEFTOVERS)
def test_leftovers_of_the_old_server_are_removed(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "seal/backup.tar", MINIMAL | {name: b"secret"})
    extract.main(Reporter(extract.TARGET))
    assert not (tmp_path / "pgdata" / name).exists()


def test_settings_of_the_old_server_are_emptied_and_its_backup_label_kept(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "seal/backup.tar",
        MINIMAL | {"postgresql.auto.conf": b"archive_command = 'evil'", "backup_label": b"START WAL"},
    )
    extract.main(Reporter(extract.TARGET))
    assert (tmp_path / "pgdata/postgresql.auto.conf").read_bytes() == b""
    assert (tmp_path / "pgdata/backup_label").read_bytes() == b"START WAL"


def test_the_names_of_preloaded_libraries_are_kept(tmp_path: Path) -> None:
    text = b"shared_preload_libraries = 'pg_cron, /tmp/evil'\nport = 1\n"
    write_tar(tmp_path / "seal/backup.tar", MINIMAL | {"postgresql.auto.conf": text})
    extract.main(Reporter(extract.TARGET))
    assert (tmp_path / "pgdata/postgresql.auto.conf").read_text() == "shared_preload_libraries = 'pg_cron'\n"


def refused(tmp_path: Path) -> JobError:
    with pytest.raises(JobError) as caught:
        extract.main(Reporter(extract.TARGET))
    assert not (tmp_path / "pgdata/PG_VERSION").exists(), "nothing refused is lifted into place"
    return caught.value


def test_an_archive_without_a_data_directory_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "seal/backup.tar", {"readme": b"hello"})
    assert refused(tmp_path).code == "no_data_directory"


def test_a_missing_major_names_the_package_to_install(tmp_path: Path) -> None:
    write_tar(tmp_path / "seal/backup.tar", MINIMAL | {"PG_VERSION": b"16\n"})
    error = refused(tmp_path)
    assert error.code == "postgres_missing"
    assert "apt install postgresql-16" in error.detail


@pytest.mark.parametrize("version", [b"9.6\n", b"", b"\xff\xfe", b"17; rm -rf /\n", b"99999999999\n"])
def test_an_invalid_version_is_refused(tmp_path: Path, version: bytes) -> None:
    write_tar(tmp_path / "seal/backup.tar", MINIMAL | {"PG_VERSION": version})
    assert refused(tmp_path).code == "postgres_missing"


def test_several_archives_are_named_and_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "seal/monday.tar", MINIMAL)
    write_tar(tmp_path / "seal/tuesday.tar", MINIMAL)
    error = refused(tmp_path)
    assert error.code == "several_archives"
    assert "(monday.tar, tuesday.tar)" in error.detail


def test_a_base_backup_that_was_uploaded_twice_is_refused_and_each_file_is_named_once(tmp_path: Path) -> None:
    for name in ("base.tar", "pg_wal.tar", "b/base.tar", "b/pg_wal.tar"):
        (tmp_path / "seal" / name).parent.mkdir(exist_ok=True)
        write_tar(tmp_path / "seal" / name, MINIMAL)
    error = refused(tmp_path)
    assert error.code == "several_archives"
    assert "(base.tar, pg_wal.tar, b/base.tar, b/pg_wal.tar)" in error.detail


@pytest.mark.parametrize(("content", "word"), [(b"PGDMP\x01\x0e", "pg_dump"), (b"hello", "not an archive")])
def test_a_file_that_is_not_an_archive_is_refused_with_advice(tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "seal/backup.dump").write_bytes(content)
    error = refused(tmp_path)
    assert error.code == "not_an_archive"
    assert word in error.detail


IN_TABLESPACE = "PG_17_202406281/16384/16401"


def test_tablespaces_of_a_base_backup_become_directories(tmp_path: Path) -> None:
    write_tar(tmp_path / "seal/base.tar", MINIMAL | {"tablespace_map": b"16400 /ssd\n16401 /with space\n"})
    write_tar(tmp_path / "seal/16400.tar", {IN_TABLESPACE: b"rows"})
    write_tar(tmp_path / "seal/16401.tar", {IN_TABLESPACE: b"more rows"})
    extract.main(Reporter(extract.TARGET))
    assert (tmp_path / "pgdata/pg_tblspc/16400" / IN_TABLESPACE).read_bytes() == b"rows"
    assert (tmp_path / "pgdata/pg_tblspc/16401" / IN_TABLESPACE).read_bytes() == b"more rows"
    assert not (tmp_path / "pgdata/tablespace_map").exists(), "recovery would make links"


def test_tablespaces_that_tar_packed_as_directories_stay_directories(tmp_path: Path) -> None:
    write_tar(tmp_path / "seal/backup.tar", MINIMAL | {f"pg_tblspc/16400/{IN_TABLESPACE}": b"rows"})
    extract.main(Reporter(extract.TARGET))
    assert (tmp_path / "pgdata/pg_tblspc/16400" / IN_TABLESPACE).read_bytes() == b"rows"


def test_a_tablespace_without_its_files_is_refused_by_name(tmp_path: Path) -> None:
    write_tar(tmp_path / "seal/base.tar", MINIMAL | {"tablespace_map": b"16400 /ssd\n16401 /hdd\n"})
    write_tar(tmp_path / "seal/16400.tar", {IN_TABLESPACE: b"rows"})
    error = refused(tmp_path)
    assert error.code == "tablespaces"
    assert "16401" in error.detail


DEEP = "var/lib/postgresql/17/main/"


@pytest.mark.parametrize("packed", [True, False])
def test_the_only_data_directory_is_found_at_any_depth_and_the_rest_reported(tmp_path: Path, packed: bool) -> None:
    content = {DEEP + name: data for name, data in MINIMAL.items()} | {"var/lib/postgresql/.psql_history": b"secret"}
    if packed:
        write_tar(tmp_path / "seal/backup.tar", content)
    else:
        write_tree(tmp_path / "seal", content)
    reporter = Reporter(extract.TARGET)
    extract.main(reporter)
    assert (tmp_path / "pgdata/global/pg_control").read_bytes() == b"control"
    assert [row.object for row in reporter.rows if row.code == "file_dropped"] == ["var/lib/postgresql/.psql_history"]


@pytest.mark.parametrize("packed", [True, False])
def test_two_data_directories_are_refused_and_named(tmp_path: Path, packed: bool) -> None:
    content = {f"{place}/{name}": data for place in ("17/main", "17/old") for name, data in MINIMAL.items()}
    if packed:
        write_tar(tmp_path / "seal/backup.tar", content)
    else:
        write_tree(tmp_path / "seal", content)
    error = refused(tmp_path)
    assert error.code == "several_archives"
    assert "17/main, 17/old" in error.detail


def test_a_data_directory_inside_another_is_dropped_and_reported(tmp_path: Path) -> None:
    content = MINIMAL | {f"old/{name}": data for name, data in MINIMAL.items()}
    write_tar(tmp_path / "seal/backup.tar", content)
    reporter = Reporter(extract.TARGET)
    extract.main(reporter)
    assert [row.object for row in reporter.rows if row.code == "file_dropped"] == ["old/"]


def test_a_base_backup_may_stand_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "seal/backups/monday").mkdir(parents=True)
    write_tar(tmp_path / "seal/backups/monday/base.tar", MINIMAL)
    write_tar(tmp_path / "seal/backups/monday/pg_wal.tar", {"000000010000000000000001": b"wal"})
    extract.main(Reporter(extract.TARGET))
    assert (tmp_path / "pgdata/pg_wal/000000010000000000000001").read_bytes() == b"wal"


def test_an_archive_of_archives_names_what_to_upload(tmp_path: Path) -> None:
    write_tar(tmp_path / "base.tar", MINIMAL)
    write_tar(tmp_path / "seal/backup.tar", {"monday/base.tar": (tmp_path / "base.tar").read_bytes()})
    error = refused(tmp_path)
    assert error.code == "no_data_directory"
    assert "monday/base.tar" in error.detail


LABEL = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000080\n"


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        ({"backup_label": LABEL}, "wal_missing", "pg_basebackup"),
        (
            {"backup_label": LABEL, "postgresql.auto.conf": b"restore_command = 'pgbackrest --stanza=x archive-get'"},
            "wal_missing",
            "--archive-copy",
        ),
        ({"backup_label": LABEL + b"INCREMENTAL FROM LSN: 0/1000028\n"}, "incremental_backup", "pg_combinebackup"),
    ],
)
def test_a_copy_that_cannot_recover_by_itself_is_refused_with_advice(
    tmp_path: Path, content: dict[str, bytes], code: str, word: str
) -> None:
    write_tar(tmp_path / "seal/backup.tar", MINIMAL | content)
    error = refused(tmp_path)
    assert error.code == code
    assert word in error.detail


def test_the_log_that_recovery_starts_from_may_have_another_timeline(tmp_path: Path) -> None:
    wal = {"pg_wal/000000030000000000000002": b"wal"}
    write_tar(tmp_path / "seal/backup.tar", MINIMAL | {"backup_label": LABEL} | wal)
    extract.main(Reporter(extract.TARGET))


@pytest.mark.parametrize("where", ["top", "inside"])
def test_a_link_in_an_unpacked_upload_is_never_followed(tmp_path: Path, where: str) -> None:
    write_tree(tmp_path / "seal", MINIMAL)
    directory = tmp_path / "seal" / ("" if where == "top" else "global")
    (directory / "pg_wal").symlink_to("/etc")
    assert refused(tmp_path).code == "unsafe_archive"


def test_endlessly_nested_directories_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "seal" / "data"
    for _ in range(uploads._MAX_DEPTH + 1):
        directory = directory / "d"
    directory.mkdir(parents=True)
    (tmp_path / "seal" / "data" / "PG_VERSION").write_bytes(b"17")
    with pytest.raises(JobError, match="nested 64 levels deep") as raised:
        extract.main(Reporter(extract.TARGET))
    assert raised.value.code == "unsafe_archive"


def test_a_version_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    with (tmp_path / "PG_VERSION").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(JobError) as raised:
        data_directories.read_major(tmp_path)
    assert raised.value.code == "postgres_missing"
