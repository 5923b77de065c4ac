"""A bad upload fails its image with a code and a sentence, writes nothing outside, and leaves nothing behind."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.backups import MAJOR, Source
from tests.system.service import Service, run


def tar_with(path: Path, *members: tarfile.TarInfo, source: Source | None = None) -> Path:
    with tarfile.open(path, "w") as tar:
        if source is not None:
            tar.add(source.data, ".")
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    found.size = 4 if kind == tarfile.REGTYPE else 0
    return found


def failure(service: Service, *files: Path) -> tuple[str, str]:
    """Finalise these files, destroy the image, and return code and detail of the failure."""
    image_id = service.create_image()
    service.upload(image_id, *files)
    answer = service.finalise(image_id)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    attributes = service.image(image_id)
    assert attributes["status"] == "failed"
    assert attributes["ready"] is False
    assert attributes["error"] == {"code": error["code"], "detail": error["detail"]}
    service.destroy_image(image_id)
    return error["code"], error["detail"]


@pytest.mark.parametrize(
    "bad",
    [
        member("../../../../../../etc/draupnir-escaped"),
        member("/etc/draupnir-escaped"),
        member("link", tarfile.SYMTYPE, "/etc"),
        member("link", tarfile.LNKTYPE, "/etc/passwd"),
        member("device", tarfile.BLKTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=["up", "absolute", "symlink", "hardlink", "device", "pipe"],
)
def test_an_entry_that_points_outside_is_refused_by_name(
    service: Service, source: Source, tmp_path: Path, bad: tarfile.TarInfo
) -> None:
    code, detail = failure(service, tar_with(tmp_path / "bad.tar", bad, source=source))
    assert code == "unsafe_archive"
    assert bad.name in detail
    assert not Path("/etc/draupnir-escaped").exists()


def version_of(text: bytes) -> Callable[[Path, Source], None]:
    def change(path: Path, source: Source) -> None:
        found = tarfile.TarInfo("./PG_VERSION")
        found.size = len(text)
        with tarfile.open(path, "w") as tar:
            tar.add(source.data, ".", filter=lambda entry: None if entry.name == "./PG_VERSION" else entry)
            tar.addfile(found, io.BytesIO(text))

    return change


def garbage(path: Path, _: Source) -> None:
    path.write_bytes(os.urandom(100_000))


def no_data_directory(path: Path, _: Source) -> None:
    tar_with(path, member("readme"))


def damaged_control_file(path: Path, source: Source) -> None:
    data = bytearray((source.data / "global/pg_control").read_bytes())
    data[20] ^= 0xFF
    found = tarfile.TarInfo("./global/pg_control")
    found.size = len(data)
    with tarfile.open(path, "w") as tar:
        tar.add(source.data, ".")
        tar.addfile(found, io.BytesIO(bytes(data)))


def no_wal(path: Path, source: Source) -> None:
    with tarfile.open(path, "w") as tar:
        tar.add(source.data, ".", filter=lambda entry: None if "/pg_wal/0" in entry.name else entry)


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (garbage, "not_an_archive", "tar of the data directory"),
        (no_data_directory, "no_data_directory", "PG_VERSION"),
        (version_of(b"16\n"), "postgres_missing", "apt install postgresql-16"),
        (version_of(b"9.4\n"), "postgres_missing", "supports Postgres 12 and newer"),
        (damaged_control_file, "recovery_failed", "pg_control"),
        (no_wal, "recovery_failed", "with all of pg_wal"),
    ],
    ids=["garbage", "no data directory", "other major", "ancient", "damaged control file", "no WAL"],
)
def test_an_unusable_upload_is_refused_with_the_reason(
    service: Service, source: Source, tmp_path: Path, make: Callable[[Path, Source], None], code: str, words: str
) -> None:
    path = tmp_path / "backup.tar"
    make(path, source)
    found, detail = failure(service, path)
    assert found == code, detail
    assert words in detail


def test_several_archives_are_named(service: Service, source: Source, backup: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.tar"
    tar_with(second, member("x"))
    code, detail = failure(service, backup, second)
    assert code == "several_archives"
    assert backup.name in detail
    assert "second.tar" in detail


def test_two_data_directories_in_one_archive_are_named(service: Service, source: Source, tmp_path: Path) -> None:
    path = tmp_path / "two.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("first", "second"):
            tar.add(source.data, name)
    code, detail = failure(service, path)
    assert code == "several_archives"
    assert "first" in detail
    assert "second" in detail


@pytest.mark.skipif(MAJOR < 17, reason="Postgres takes incremental backups from 17 on")
def test_an_incremental_backup_alone_is_refused_with_the_command_that_helps(
    service: Service, source: Source, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = Source.copy_of(source, tmp_path_factory.mktemp("incremental"))
    copy.start()
    copy.sql("ALTER SYSTEM SET summarize_wal = on")
    copy.stop()
    full = copy.base_backup("-X", "fetch")
    incremental = copy.base_backup("-X", "fetch", f"--incremental={full}/backup_manifest")
    code, detail = failure(service, *incremental.iterdir())
    assert code == "incremental_backup"
    assert "pg_combinebackup" in detail
    shutil.rmtree(copy.directory)


def test_a_restore_of_pgbackrest_that_was_never_started_is_refused_with_its_options(
    service: Service, source: Source, tmp_path: Path
) -> None:
    """pgBackRest restores a backup label, an empty pg_wal and the command that fetches the log."""
    backup = source.base_backup("-X", "none")
    data = tmp_path / "restored"
    data.mkdir()
    run("tar", "-xf", backup / "base.tar", "-C", data)
    with (data / "postgresql.auto.conf").open("a") as file:
        file.write("restore_command = 'pgbackrest --stanza=main archive-get %f \"%p\"'\n")
    (data / "recovery.signal").touch()
    path = tmp_path / "restored.tar"
    run("tar", "-cf", path, "-C", data, ".")
    code, detail = failure(service, path)
    assert code == "wal_missing"
    assert "--archive-copy" in detail
    assert "--type=immediate" in detail


def test_a_compressed_archive_with_a_flipped_byte_is_refused(service: Service, backup: Path, tmp_path: Path) -> None:
    data = bytearray(backup.read_bytes())
    data[len(data) // 2] ^= 0xFF
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(data)
    code, _ = failure(service, bad)
    assert code in {"damaged_archive", "truncated_archive", "not_an_archive"}


def test_finalise_before_upload_changes_nothing(service: Service) -> None:
    image_id = service.create_image()
    answer = service.finalise(image_id)
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["code"] == "nothing_uploaded"
    assert service.image(image_id)["status"] == "awaiting_upload"
    service.destroy_image(image_id)


def test_an_uploader_cannot_keep_the_helper_from_deleting(service: Service, source: Source, tmp_path: Path) -> None:
    """No content of the upload folder, of any mode, prevents the destruction of the image."""
    directory = tmp_path / "closed"
    directory.mkdir()
    (directory / "file").write_text("x")
    image_id = service.create_image()
    service.upload(image_id, directory, recursive=True)
    folder = Path(f"/srv/draupnir/chroot/draupnir/image_uploads/{image_id}/closed")
    run("runuser", "-u", "upload", "--", "chmod", "0", folder, cwd="/")
    assert service.finalise(image_id).status_code in {422}
    service.destroy_image(image_id)


def test_damaged_data_are_reported_by_name_and_not_as_a_bad_script(
    service: Service, source: Source, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A corrupt page that the script reads, and a missing file that it does not read."""
    damaged = Source.copy_of(source, tmp_path_factory.mktemp("damaged"))
    damaged.start()
    paths = [damaged.data / damaged.value(f"SELECT pg_relation_filepath('{name}')") for name in ("users", "orders")]
    damaged.stop()
    content = bytearray(paths[0].read_bytes())
    for number, (name, word) in enumerate([("users", "XX001"), ("orders", "58P01")]):
        if name == "users":
            paths[0].write_bytes(content[:8192] + b"\xff" * 8192 + content[16384:])
        else:
            paths[0].write_bytes(content)
            paths[1].unlink()
        code, detail = failure(service, damaged.tarball(f"{number}.tar.zst", "--zstd"))
        assert code == "backup_damaged", detail
        assert f"table public.{name} in database my_db" in detail
        assert word in detail
    shutil.rmtree(damaged.directory)
