"""Laws of an instance's files: only the user can read them, each role has its own, and they match each other."""

from __future__ import annotations

import base64
import os
import stat
import threading
from pathlib import Path

import pytest

from draupnir_client import credentials
from draupnir_client.credentials import CredentialFiles
from draupnir_client.errors import BadAnswer, ConfigError
from draupnir_client.models import Credentials
from draupnir_client.urls import parse_url

URL = parse_url("http://127.0.0.1:8432")
# Different names, without a special meaning for a server or a file system.
NAMES = [
    "draupnir",
    "app",
    "App",
    "APP",
    "Straße",
    "Strasse",
    "../../x",
    ".",
    "..",
    "a/b",
    "a\nb",
    "role-x",
    "-n",
    "con",
]


def made(name: str, *, pkcs12: bool = True) -> Credentials:
    key = f"-----BEGIN PRIVATE KEY-----\n{base64.b64encode(name.encode()).decode()}\n-----END PRIVATE KEY-----\n"
    return Credentials(f"ca {name}", f"certificate {name}", key, name.encode() if pkcs12 else None)


def save(name: str, instance_id: int = 4, role: str = "draupnir") -> CredentialFiles:
    return credentials.save(URL, instance_id, role, made(name))


def test_only_the_user_can_read_certificates_and_keys(home: Path) -> None:
    cache = home / ".cache/draupnir"
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    save("a")
    save("b", role="an app")
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in [cache, *cache.rglob("*")]}
    assert modes == {(True, 0o700), (False, 0o600)}


def test_the_key_is_kept_in_der_and_pkcs12_too() -> None:
    files = save("a")
    assert (files.client_key_der.read_bytes(), files.client_pkcs12.read_bytes()) == (b"a", b"a")
    assert {path.name for path in files.client_key.parent.iterdir()} == {
        *("ca.crt", "client.crt", "client.key", "client.pk8", "client.p12")
    }


def test_a_server_without_pkcs12_is_supported() -> None:
    files = credentials.save(URL, 4, "draupnir", made("a", pkcs12=False))
    assert files.client_key_der.read_bytes() == b"a"
    assert not files.client_pkcs12.exists()


@pytest.mark.parametrize("key", ["", "key", "-----BEGIN EC PRIVATE KEY-----\nYQ==\n-----END EC PRIVATE KEY-----\n"])
def test_a_key_of_another_kind_replaces_nothing(key: str) -> None:
    files = save("a")
    with pytest.raises(BadAnswer, match="PKCS#8"):
        credentials.save(URL, 4, "draupnir", Credentials("ca b", "certificate b", key, None))
    assert files.client_certificate.read_text() == "certificate a"


def test_each_role_of_each_instance_keeps_its_own(home: Path) -> None:
    """This holds on a case-insensitive file system, too, and a role's name cannot leave the cache."""
    files = [(save(f"{number} {role}", number, role), f"ca {number} {role}") for number in (4, 5) for role in NAMES]
    assert [found.ca_certificate.read_text() for found, _ in files] == [wanted for _, wanted in files]
    folders = [found.client_key.parent for found, _ in files]
    assert len({str(folder).casefold() for folder in folders}) == len(files)
    assert all(folder.resolve().is_relative_to(home.resolve() / ".cache/draupnir/instances") for folder in folders)


def test_destroying_an_instance_removes_the_files_of_all_roles() -> None:
    for role in NAMES:
        save("a", 4, role)
    kept = save("b", 5)
    credentials.remove(URL, 4)
    assert not credentials.directory(URL, 4).exists()
    assert kept.client_key.exists()


def test_instances_of_two_servers_are_kept_apart() -> None:
    other = parse_url("https://other.tld")
    kept = save("a")
    credentials.save(other, 4, "draupnir", made("b"))
    assert kept.ca_certificate.read_text() == "ca a"
    credentials.remove(other, 4)
    assert kept.ca_certificate.exists()


def test_xdg_cache_home_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert credentials.directory(URL, 4).is_relative_to(tmp_path / "cache/draupnir/instances")


def test_certificate_and_key_match_whatever_runs_at_once() -> None:
    def save_often(name: str) -> None:
        for _ in range(20):
            save(name)

    threads = [threading.Thread(target=save_often, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = credentials.files_in(credentials.role_directory(URL, 4, "draupnir"))
    name = files.client_pkcs12.read_text()
    assert files.client_certificate.read_text() == f"certificate {name}"
    assert files.client_key.read_text() == made(name).client_key
    assert files.client_key_der.read_text() == name
    assert len(list(files.client_key.parent.iterdir())) == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to another user takes root")
def test_a_directory_of_another_user_is_not_trusted(home: Path) -> None:
    (home / ".cache/draupnir").mkdir(parents=True)
    os.chown(home / ".cache/draupnir", 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to another user"):
        save("a")
