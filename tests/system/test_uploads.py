"""Every form of a backup is accepted; the upload user can upload, and do nothing else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.backups import MAJOR, Source
from tests.system.faults import await_that
from tests.system.service import Service, run


def check_instance_of(service: Service, image_id: int) -> None:
    instance_id = int(service.create_instance(image_id)["id"])
    assert service.answer(instance_id, "SELECT count(*) FROM users") == "5000"
    service.destroy_instance(instance_id)
    service.destroy_image(image_id)


@pytest.mark.parametrize("option", ["", "-z", "--zstd", "-Ipzstd", "-J", "-j", "-Ilz4"])
def test_a_tarball_is_recognised_by_content(service: Service, source: Source, option: str) -> None:
    path = source.tarball(f"backup{option}", *filter(None, [option]))
    check_instance_of(service, service.make_image(path))


def test_the_data_directory_may_be_in_a_folder(service: Service, source: Source) -> None:
    path = source.tarball("folder.tar", members="main", base=source.data.parent)
    check_instance_of(service, service.make_image(path))


@pytest.mark.parametrize("options", [(), ("-z",), ("-X", "fetch")], ids=" ".join)
def test_a_base_backup_in_tar_format_is_accepted(service: Service, source: Source, options: tuple[str, ...]) -> None:
    directory = source.base_backup(*options)
    image_id = service.create_image()
    service.upload(image_id, *directory.iterdir())
    answer = service.finalise(image_id)
    assert answer.status_code == 200, answer.text
    check_instance_of(service, image_id)


def test_a_base_backup_may_be_copied_in_as_a_folder(service: Service, source: Source) -> None:
    image_id = service.create_image()
    service.upload(image_id, source.base_backup("-X", "fetch"), recursive=True)
    answer = service.finalise(image_id)
    assert answer.status_code == 200, answer.text
    check_instance_of(service, image_id)


def test_a_base_backup_that_does_not_match_its_manifest_is_refused(service: Service, source: Source) -> None:
    directory = source.base_backup("-X", "stream")
    manifest = directory / "backup_manifest"
    text = manifest.read_text()
    manifest.write_text(text.replace('"Size": 8192', '"Size": 8193'))
    image_id = service.create_image()
    service.upload(image_id, *directory.iterdir())
    (error,) = service.finalise(image_id).json()["errors"]
    assert error["code"] == "manifest_mismatch"
    service.destroy_image(image_id)


def test_an_unpacked_directory_is_accepted(service: Service, source: Source) -> None:
    image_id = service.create_image()
    service.upload(image_id, source.data, recursive=True)
    answer = service.finalise(image_id)
    assert answer.status_code == 200, answer.text
    check_instance_of(service, image_id)


def test_the_major_and_the_size_are_reported(service: Service, image: int) -> None:
    attributes = service.image(image)
    assert attributes["postgres_version"] == str(MAJOR)
    assert 10_000_000 < attributes["size_bytes"] < 1_000_000_000


def test_an_image_uses_no_more_disk_space_than_its_size(service: Service, source: Source) -> None:
    """This also holds if files could share extents with the archive, which would keep the whole archive."""
    path = source.tarball("plain.tar")
    before = bytes_taken()
    image_id = service.make_image(path)
    size = service.image(image_id)["size_bytes"]
    # Upload, seal and work are in the trash for a moment. Catalogs are written twice. Their first version stays if the
    # rest of its extent is still in use: about 7 MB for any size of data.
    await_that(lambda: size / 2 < bytes_taken() - before < 1.2 * size, "only the image is left")
    service.destroy_image(image_id)


def bytes_taken() -> int:
    """Return the usage of the data disk, after deleted data are freed."""
    run("btrfs", "subvolume", "sync", "/srv/draupnir")
    run("sync", "-f", "/srv/draupnir")
    return shutil.disk_usage("/srv/draupnir").used


def test_a_ready_image_accepts_no_upload(service: Service, image: int, backup: Path) -> None:
    assert service.upload(image, backup, ok=False).returncode != 0


@pytest.mark.parametrize(
    "command",
    [
        ["ssh", "upload@localhost", "id"],
        ["ssh", "upload@localhost"],
        [
            "ssh",
            "-N",
            "-L",
            "9999:127.0.0.1:8432",
            "-o",
            "ExitOnForwardFailure=yes",
            "-W",
            "127.0.0.1:8432",
            "upload@localhost",
        ],
    ],
    ids=["command", "shell", "forward"],
)
def test_the_upload_user_gets_no_shell_and_no_tunnel(service: Service, command: list[str]) -> None:
    program, *rest = command
    done = run(program, *service.ssh_options(), *rest, ok=False, input="")
    assert done.returncode != 0
    assert "uid=" not in done.stdout
    assert "HTTP" not in done.stdout


def sftp(service: Service, *lines: str) -> tuple[int, str]:
    done = run("sftp", *service.ssh_options(), "-b", "-", "upload@localhost", ok=False, input="\n".join(lines) + "\n")
    return done.returncode, done.stdout + done.stderr


def test_a_key_can_only_upload_files(service: Service, backup: Path) -> None:
    image_id = service.create_image()
    folder = f"/draupnir/image_uploads/{image_id}"
    service.upload(image_id, backup)
    assert sftp(service, f"put {backup} {folder}/second")[0] == 0
    for line in (
        f"ls {folder}",
        f"get {folder}/{backup.name} /dev/null",
        f"rm {folder}/{backup.name}",
        f"rename {folder}/{backup.name} {folder}/other",
        f"symlink /etc/passwd {folder}/link",
        f"ln {folder}/{backup.name} {folder}/hard",
        "ls /etc",
        "mkdir /other",
        "ls /draupnir/image_uploads",
        f"put {backup} /draupnir/",
        f"put {backup} /draupnir/image_uploads/99999",
        "get /../../../etc/passwd /tmp/taken",
    ):
        assert sftp(service, line)[0] != 0, line
    service.destroy_image(image_id)


@pytest.fixture
def other(service: Service, tmp_path: Path) -> Iterator[Service]:
    """Provide another upload key."""
    key = tmp_path / "other.pem"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "root@host", "-f", key)
    run("draupnir", "upload-key", "add", "--name", "other", key.with_suffix(".pem.pub"))
    yield Service(key)
    run("draupnir", "upload-key", "remove", "other")


def test_a_key_cannot_download_uploads_of_another(
    service: Service, other: Service, backup: Path, tmp_path: Path
) -> None:
    image_id = service.create_image()
    service.upload(image_id, backup)
    source = f"upload@localhost:/draupnir/image_uploads/{image_id}/{backup.name}"
    for options in ([], ["-r"], ["-O"]):
        assert run("scp", *options, *other.ssh_options(), source, tmp_path / "taken", ok=False).returncode != 0
    assert not (tmp_path / "taken").exists() or (tmp_path / "taken").stat().st_size == 0
    service.destroy_image(image_id)


def test_the_journal_names_the_key_with_which_somebody_uploads(service: Service, other: Service, backup: Path) -> None:
    image_id = service.create_image()
    other.upload(image_id, backup)
    found = run("journalctl", "--output=cat", "DRAUPNIR_UPLOAD_KEY=other").stdout
    fingerprint = run("ssh-keygen", "-l", "-f", other.key).stdout.split()[1]
    assert re.search(rf'upload key "other" offered from (::1|127\.0\.0\.1): {re.escape(fingerprint)}', found), found
    assert f"ED25519 {fingerprint}" in run("journalctl", "--output=cat", "--grep=Accepted publickey for upload").stdout
    service.destroy_image(image_id)


def test_other_users_of_the_machine_cannot_read_world_readable_uploads(service: Service, backup: Path) -> None:
    image_id = service.create_image()
    service.upload(image_id, backup)
    folder = f"/draupnir/image_uploads/{image_id}"
    assert sftp(service, f"chmod 777 {folder}", f"chmod 666 {folder}/{backup.name}")[0] == 0
    path = f"/srv/draupnir/chroot{folder}/{backup.name}"
    for user in ("nobody", "draupnir", "postgres"):
        assert run("runuser", "-u", user, "--", "cat", path, ok=False, cwd="/").returncode != 0, user
    service.destroy_image(image_id)


def test_the_old_scp_protocol_gets_the_error_that_only_sftp_is_served(service: Service, backup: Path) -> None:
    image_id = service.create_image()
    target = f"upload@localhost:/draupnir/image_uploads/{image_id}"
    assert run("scp", "-O", *service.ssh_options(), backup, target, ok=False).returncode != 0
    service.destroy_image(image_id)


def test_an_interrupted_upload_is_detected_and_can_be_repeated(service: Service, backup: Path, tmp_path: Path) -> None:
    half = tmp_path / "db_backup.tar.gz"
    half.write_bytes(backup.read_bytes()[: backup.stat().st_size // 2])
    image_id = service.create_image()
    service.upload(image_id, half)
    answer = service.finalise(image_id)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "truncated_archive"
    assert service.image(image_id)["status"] == "failed"
    shutil.copy(backup, half)
    service.upload(image_id, half)
    assert service.finalise(image_id).status_code == 200
    check_instance_of(service, image_id)
