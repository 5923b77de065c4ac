"""Laws of the host name and the port that a server returns for an instance."""

from __future__ import annotations

from pathlib import Path

import pytest

from draupnir_client import environment
from draupnir_client.credentials import files_in
from draupnir_client.errors import BadAnswer, ConfigError
from draupnir_client.models import read_instance

from .conftest import instance


def variables(hostname: str, folder: str = "/home/me") -> dict[str, str]:
    answer = read_instance(instance(4, hostname=hostname))
    return environment.variables(environment.connection(answer, "draupnir", files_in(Path(folder)), "postgres"))


@pytest.mark.parametrize(
    "hostname",
    [
        "",
        "/tmp",
        "@abstract",
        "a,b",
        "a b",
        "$(touch pwned)",
        "a;b",
        "x\n",
        "-h",
        "a'b",
        "host=evil",
        "\x1b[2J",
        "é.tld",
        "a" * 254,
    ],
)
def test_an_invalid_host_name_is_refused(hostname: str) -> None:
    with pytest.raises(BadAnswer, match="not a host name"):
        variables(hostname=hostname)


@pytest.mark.parametrize("hostname", ["my-draupnir.tld", "10.0.0.1", "::1", "fe80::1", "LOCALHOST", "a_b"])
def test_host_names_and_addresses_are_accepted(hostname: str) -> None:
    assert variables(hostname=hostname)["PGHOST"] == hostname


def test_a_key_path_that_libpq_would_parse_as_an_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="XDG_CACHE_HOME"):
        variables("my-draupnir.tld", "/home/a:b")
