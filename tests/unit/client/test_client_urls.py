"""Laws of server urls: which are valid, and to which a secret may be sent."""

from __future__ import annotations

import pytest

from draupnir_client.errors import ConfigError
from draupnir_client.urls import parse_url


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("http://127.0.0.1:8432", "http://127.0.0.1:8432"),
        ("https://My-Draupnir.tld/", "https://my-draupnir.tld"),
        ("https://my-draupnir.tld:443/below/", "https://my-draupnir.tld/below"),
        ("http://[::1]:8432", "http://[::1]:8432"),
    ],
)
def test_one_server_is_written_in_one_way(text: str, written: str) -> None:
    assert str(parse_url(text)) == written
    assert str(parse_url(written)) == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "//x.tld",
        "ftp://x.tld",
        "https://",
        "https://-oProxyCommand=x",
        "https://[::1",
        "https://a b.tld",
        "https://u:p@x.tld",
        "https://x.tld:99999",
        "https://x.tld?a=b",
        "https://x.tld\n",
        "https://x\x1b.tld",
        "my-draupnir.tld",
    ],
)
def test_an_invalid_url_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_url(text)


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("http://127.0.0.1:8432", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:8432", True),
        ("http://localhost:8432", True),
        ("https://my-draupnir.tld", True),
        ("http://my-draupnir.tld", False),
        ("http://10.0.0.1:8432", False),
        ("http://127.0.0.1.evil.tld", False),
        ("http://localhost.evil.tld", False),
    ],
)
def test_plain_http_is_private_on_this_machine_only(text: str, private: bool) -> None:
    assert parse_url(text).is_private is private
