"""Laws of the upload keys: only complete plain public keys are accepted, once each, and writes are atomic."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from draupnir import upload_keys
from draupnir.upload_keys import UploadKey, UploadKeyError

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "upload_keys"


def make_key(directory: Path, comment: str, *options: str) -> Path:
    path = directory / f"key-{comment}"
    arguments = options or ("-t", "ed25519")
    subprocess.run(["ssh-keygen", "-q", *arguments, "-N", "", "-C", comment, "-f", path], check=True)
    return path.with_suffix(".pub")


def parse(path: Path) -> UploadKey:
    return upload_keys.parse_file(path.read_bytes(), str(path))


def test_a_key_is_added_listed_and_removed(file: Path, tmp_path: Path) -> None:
    alice, bob = parse(make_key(tmp_path, "alice")), parse(make_key(tmp_path, "bob"))
    assert "SHA256:" in upload_keys.add(file, alice)
    upload_keys.add(file, bob)
    assert upload_keys.read_all(file) == [alice, bob]
    assert upload_keys.remove(file, "1") == alice
    assert upload_keys.remove(file, "bob") == bob
    assert upload_keys.read_all(file) == []


def test_the_file_is_readable_by_all_writable_by_its_owner_and_alone(file: Path, tmp_path: Path) -> None:
    upload_keys.add(file, parse(make_key(tmp_path, "alice")))
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert not list(tmp_path.glob(".upload_keys*"))


def test_lines_of_an_administrator_survive(file: Path, tmp_path: Path) -> None:
    by_hand = '# ours\nfrom="10.0.0.1" ssh-ed25519 AAAA backup\n'
    file.write_text(by_hand)
    upload_keys.add(file, parse(make_key(tmp_path, "alice")))
    upload_keys.remove(file, "alice")
    assert file.read_text() == by_hand


def test_a_key_is_in_the_file_once(file: Path, tmp_path: Path) -> None:
    key = parse(make_key(tmp_path, "alice"))
    upload_keys.add(file, key)
    with pytest.raises(UploadKeyError, match="already exists as number 1"):
        upload_keys.add(file, UploadKey(key.kind, key.blob, "another comment"))


def test_a_private_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UploadKeyError, match="private key"):
        parse(make_key(tmp_path, "alice").with_suffix(""))


@pytest.mark.parametrize("prefix", ['command="sh" ', "restrict ", 'from="*",pty ', "environment=X=1 "])
def test_options_before_a_key_are_refused(tmp_path: Path, prefix: str) -> None:
    line = prefix + make_key(tmp_path, "alice").read_text()
    with pytest.raises(UploadKeyError, match="options"):
        upload_keys.parse(line, "x.pub")


@pytest.mark.parametrize(
    "text", ["", "\n# only a comment\n", "ssh-ed25519 A\nssh-ed25519 B\n", "ssh-ed25519 AAAA \x1b[2J", "hello"]
)
def test_a_file_without_exactly_one_key_is_refused(text: str) -> None:
    with pytest.raises(UploadKeyError):
        upload_keys.parse(text, "x.pub")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (upload_keys.MAX_FILE_BYTES + 1)])
def test_a_key_that_is_not_a_short_text_is_refused(content: bytes) -> None:
    with pytest.raises(UploadKeyError):
        upload_keys.parse_file(content, "x.pub")


@pytest.mark.parametrize("blob", ["", "AAAA", "!!!!", "AAAAC3NzaC1lZDI1NTE5AAAA"])
def test_a_key_that_ssh_keygen_refuses_never_reaches_the_file(file: Path, blob: str) -> None:
    with pytest.raises(UploadKeyError, match="ssh-keygen"):
        upload_keys.add(file, UploadKey("ssh-ed25519", blob, ""))
    assert not file.exists()


def test_a_short_rsa_key_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UploadKeyError, match="too short"):
        upload_keys.add(file, parse(make_key(tmp_path, "old", "-t", "rsa", "-b", "1024")))


def test_removing_an_unknown_or_ambiguous_key_is_refused(file: Path, tmp_path: Path) -> None:
    keys = [parse(make_key(tmp_path, comment)) for comment in ("a", "b")]
    file.write_text("".join(f"{key.kind} {key.blob} backup\n" for key in keys))
    with pytest.raises(UploadKeyError, match="key 'nobody' not found"):
        upload_keys.remove(file, "nobody")
    with pytest.raises(UploadKeyError, match="1, 2"):
        upload_keys.remove(file, "backup")
    assert len(upload_keys.read_all(file)) == 2


def test_each_key_has_a_unique_name(file: Path, tmp_path: Path) -> None:
    keys = [parse(make_key(tmp_path, comment)) for comment in ("a", "b", "c")]
    for key in keys[:2]:
        upload_keys.add(file, UploadKey(key.kind, key.blob, "root@host"))
    assert "nightly" in upload_keys.add(file, keys[2], "nightly")
    assert [key.comment for key in upload_keys.read_all(file)] == ["root@host", "root@host-2", "nightly"]
    assert upload_keys.remove(file, "nightly").blob == keys[2].blob


@pytest.mark.parametrize("name", ["", "1", "a b", "a\nb", "x" * 101, "ü", '"'])
def test_an_invalid_name_is_refused(file: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UploadKeyError, match="is not a valid name"):
        upload_keys.add(file, parse(make_key(tmp_path, "a")), name)


def test_a_name_that_is_taken_is_refused(file: Path, tmp_path: Path) -> None:
    upload_keys.add(file, parse(make_key(tmp_path, "a")), "nightly")
    with pytest.raises(UploadKeyError, match="another key is named 'nightly'"):
        upload_keys.add(file, parse(make_key(tmp_path, "b")), "nightly")
