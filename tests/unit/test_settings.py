from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from draupnir.identity import emails
from draupnir.settings import Settings, SettingsError, is_private, load
from draupnir_helper import wire

SIGN_IN = """trusted_user_email_domain = '@example.com'
[oidc]
discovery_url = 'https://id.example.com/.well-known/openid-configuration'
client_id = 'draupnir'
redirect_url = 'https://my-draupnir.tld/oauth_callback'
"""


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
            clean_interval = "1h30m"
            grace_period = 90
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
            "clean_interval": timedelta(minutes=90),
            "grace_period": timedelta(seconds=90),
            "http": {
                "listen_address": "[::]:8443",
                "tls_certificate": "/etc/ssl/a.pem",
                "tls_private_key": "/etc/ssl/a.key",
            },
        }
    )
    assert settings.dsn == "host=db"


def test_redirect_url_defaults_to_the_https_listener(tmp_path: Path) -> None:
    settings = load(written(tmp_path, SIGN_IN))
    assert settings.redirect_url == "https://my-draupnir.tld/oauth_callback"
    listener = "[http]\nlisten_address = '[::]:8443'\ntls_certificate = '/a'\ntls_private_key = '/a'\n"
    settings = load(
        written(tmp_path, "public_hostname = 'my-draupnir.tld'\n" + SIGN_IN.replace("redirect_url", "#") + listener)
    )
    assert settings.redirect_url == "https://my-draupnir.tld:8443/oauth_callback"


@pytest.mark.parametrize("address", ["o'neil@example.com", "a.b+c-d_e@x-y.example.com"])
def test_an_accepted_admin_address_can_sign_in_and_own_an_instance(tmp_path: Path, address: str) -> None:
    assert load(written(tmp_path, f'admins = ["{address}"]\n')).admins == {address}
    assert emails.PATTERN.fullmatch(address)
    assert TypeAdapter(wire.Owner).validate_python(address) == address


def test_addresses_of_admins_are_compared_in_lower_case(tmp_path: Path) -> None:
    assert load(written(tmp_path, "admins = ['Jane@Example.com']\n")).admins == {"jane@example.com"}


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://id.example.com/path", True),
        ("https://id.example.com:8443/path", True),
        ("http://127.0.0.1:9000/path", True),
        ("http://localhost/path", True),
        ("http://[::1]:9000/path", True),
        ("http://id.example.com/path", False),
        ("http://127.0.0.1.example.com/path", False),
        ("http://localhost.example.com/path", False),
        ("http://127.0.0.1@example.com/path", False),
        ("https://user@example.com/path", False),
        ("https://example.com\n/path", False),
        ("ftp://example.com/path", False),
        ("", False),
    ],
)
def test_secrets_travel_encrypted_or_within_the_machine(url: str, private: bool) -> None:
    assert is_private(url) is private


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("# a comment\nmin_port = 1\n", 2, "min_port is an unknown key"),
        ("\n[http]\nlisten = 'x'\n", 3, "listen is an unknown key"),
        ("http.listen = 'x'\n", 1, "listen is an unknown key"),
        ("[https]\n", 1, "https is an unknown key"),
        ("min_instance_port = '7000'\n", 1, "integer"),
        ("min_instance_port = true\n", 1, "integer"),
        ("min_instance_port = 80\n", 1, "1024"),
        ("data_path = 5\n", 1, "data_path"),
        ("data_path = 'srv'\n", 1, "absolute"),
        ("data_disk_size = '0G'\n", 1, "data_disk_size"),
        ("max_image_bytes = '60 MB'\n", 1, "= '60 MB' has to be a size such as '20G'"),
        ("data_device = 'sda'\n", 1, "a text that matches ^/dev/"),
        ("public_hostname = 'a b'\n", 1, "host name"),
        ("shared_preload_libraries = 'x'\n", 1, "shared_preload_libraries"),
        ("shared_preload_libraries = [\n 'x y',\n]\n", 1, "shared_preload_libraries"),
        ("admins = ['@corp.example']\n", 1, "admins"),
        *(
            (f"\nclean_interval = {wrong}\n", 2, "'1h30m'")
            for wrong in ("''", "'30'", "'30 m'", "'1m1h'", "'-5m'", "0")
        ),
        *((f"grace_period = {wrong}\n", 1, "a time") for wrong in ("true", "1.5", "'9999d'", "['24h']", "-1", "1e9")),
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
        ("trusted_user_email_domain = 'example.com'\n", 1, "@"),
        ("admins = ['jane']\n", 1, "admins"),
        ("admins = ['jane doe@example.com']\n", 1, "an e-mail address such as"),
        ("admins = 'jane@example.com'\n", 1, "admins"),
        ("\n[oidc]\nclient_id = 'x'\ndiscovery_url = 'https://example.com'\n", 4, "openid-configuration"),
        ("[oidc]\n", 1, "[oidc] has no client_id"),
        (SIGN_IN.replace("https://id", "http://id"), 3, "https://"),
        (SIGN_IN.replace("https://my", "http://my"), 5, "https://"),
        (SIGN_IN.replace("oauth_callback", ""), 5, "oauth_callback"),
        (SIGN_IN.replace("trusted_user_email_domain = '@example.com'", ""), 2, "trusted_user_email_domain"),
        (SIGN_IN.replace("redirect_url", "#"), 2, "redirect_url"),
        ("[http]\nlisten_address = '8443'\ntls_certificate = '/a'\ntls_private_key = '/a'\n", 2, "listen_address"),
    ],
)
def test_an_invalid_setting_is_reported_with_its_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(f"{path}:{line}: "), message
    assert says in message
    assert "\n" not in message


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        load(written(tmp_path, "x = 1\ny = 2\n"))
    assert len(str(raised.value).splitlines()) == 2


def test_bytes_that_are_not_utf8_are_reported_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"# fine\n# \xff\n")
    with pytest.raises(SettingsError, match=r"config.toml:2: the file is not UTF-8"):
        load(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path)
