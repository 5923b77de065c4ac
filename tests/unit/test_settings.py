from __future__ import annotations

from pathlib import Path

import pytest

from draupnir.settings import Settings, SettingsError, load


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_a_missing_file_means_all_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path / "config.toml")
    assert settings.instance_ports == range(6432, 8432)
    assert settings.dsn == "host=/run/draupnir-metadata dbname=draupnir user=draupnir"
    assert settings.public_hostname


def test_every_key_arrives(tmp_path: Path) -> None:
    settings = load(
        written(
            tmp_path,
            """
            data_path = "/data"
            data_disk_size = "200G"
            database_url = "host=db"
            public_hostname = "2001:db8::1"
            min_instance_port = 7000
            max_instance_port = 7001
            shared_preload_libraries = ["pg_stat_statements"]
            use_x_forwarded_for = true
            trusted_proxy_cidrs = ["10.0.0.0/8", "2001:db8::1", "::ffff:192.0.2.0/120"]
            admins = ["Ann@corp.example"]
            [http]
            listen_address = "[::]:8443"
            tls_certificate = "/etc/ssl/a.pem"
            tls_private_key = "/etc/ssl/a.key"
            """,
        )
    )
    assert settings == Settings.model_validate(
        {
            "data_path": "/data",
            "data_disk_size": "200G",
            "database_url": "host=db",
            "public_hostname": "2001:db8::1",
            "min_instance_port": 7000,
            "max_instance_port": 7001,
            "shared_preload_libraries": ["pg_stat_statements"],
            "use_x_forwarded_for": True,
            "trusted_proxy_cidrs": ["10.0.0.0/8", "2001:db8::1/128", "192.0.2.0/24"],
            "admins": ["ann@corp.example"],
            "http": {
                "listen_address": "[::]:8443",
                "tls_certificate": "/etc/ssl/a.pem",
                "tls_private_key": "/etc/ssl/a.key",
            },
        }
    )
    assert settings.dsn == "host=db"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("# a comment\nmin_port = 1\n", 2, "min_port is not a key"),
        ("\n[http]\nlisten = 'x'\n", 3, "listen is not a key"),
        ("http.listen = 'x'\n", 1, "listen is not a key"),
        ("[https]\n", 1, "https is not a key"),
        ("min_instance_port = '7000'\n", 1, "integer"),
        ("min_instance_port = true\n", 1, "integer"),
        ("min_instance_port = 80\n", 1, "1024"),
        ("data_path = 5\n", 1, "data_path"),
        ("data_path = 'srv'\n", 1, "absolute"),
        ("data_disk_size = '0G'\n", 1, "data_disk_size"),
        ("public_hostname = 'a b'\n", 1, "host name"),
        ("shared_preload_libraries = 'x'\n", 1, "shared_preload_libraries"),
        ("shared_preload_libraries = [\n 'x y',\n]\n", 1, "shared_preload_libraries"),
        ("admins = ['@corp.example']\n", 1, "admins"),
        ("min_instance_port = 9000\n\nmax_instance_port = 8000\n", 3, "lower"),
        ("\nmin_instance_port = 9000\n", 2, "lower"),
        ("max_instance_port = 6432\n", 1, "lower"),
        ("a = 1\na = 2\n", 2, "TOML"),
        ("data_path = /srv\n", 1, "TOML"),
        ("http = 3\n", 1, "http"),
        ("\nuse_x_forwarded_for = true\n", 2, "trusted_proxy_cidrs"),
        ("trusted_proxy_cidrs = ['10.0.0.1/8']\n", 1, "10.0.0.0/8"),
        ("trusted_proxy_cidrs = ['proxy']\n", 1, "network"),
        ("trusted_proxy_cidrs = '10.0.0.0/8'\n", 1, "trusted_proxy_cidrs"),
        ("data_path = '/srv'\n[http]\nlisten_address = '0.0.0.0:8443'\n", 3, "tls_certificate"),
        ("[http]\nlisten_address = '8443'\ntls_certificate = '/a'\ntls_private_key = '/a'\n", 2, "listen_address"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(f"{path}:{line}: "), message
    assert says in message
    assert "\n" not in message


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        load(written(tmp_path, "x = 1\ny = 2\n"))
    assert len(str(raised.value).splitlines()) == 2


def test_bytes_that_are_not_utf8_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"# fine\n# \xff\n")
    with pytest.raises(SettingsError, match=r"config.toml:2: not UTF-8"):
        load(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path)
