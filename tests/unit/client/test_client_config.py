"""Laws of the user's settings: precedence, saving, and to which server a token is sent."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draupnir_client import config
from draupnir_client.errors import ConfigError

from .conftest import Run


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_default_is_the_server_on_this_machine() -> None:
    settled = config.load()
    assert (str(settled.url), settled.token, settled.database) == ("http://127.0.0.1:8432", None, None)


def test_environment_wins_over_file_and_option_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    config.save(url="https://saved.tld", token="saved")
    assert (str(config.load().url), config.load().token) == ("https://saved.tld", "saved")
    monkeypatch.setenv("DRAUPNIR_URL", "https://environment.tld")
    monkeypatch.setenv("DRAUPNIR_TOKEN", "environment")
    assert (str(config.load().url), config.load().token) == ("https://environment.tld", "environment")
    assert str(config.load("https://option.tld").url) == "https://option.tld"


def test_the_database_is_the_saved_one_then_pgdatabase_and_else_left_to_the_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGDATABASE", "environment")
    assert config.load().database == "environment"
    config.save(database="saved")
    assert config.load().database == "saved"


@pytest.mark.parametrize("saved", [None, "http://127.0.0.1:8432", "https://mine.tld"])
def test_a_saved_token_is_never_for_another_server(saved: str | None) -> None:
    config.save(url=saved, token="secret")
    assert config.load().token == "secret"
    for other in ("https://evil.tld", "http://127.0.0.1:8433", "https://127.0.0.1:8432", "https://mine.tld:444"):
        assert config.load(other).token is None


def test_changing_the_url_forgets_the_token_of_the_old_one(run: Run) -> None:
    config.save(url="https://old.tld", token="secret")
    assert "is removed" in run("config", "set", "url", "https://new.tld").stderr
    assert config.read() == config.Saved(url="https://new.tld")


def test_a_token_set_before_the_url_is_kept(run: Run) -> None:
    run("config", "set", "token", "secret", token=None)
    run("config", "set", "url", "https://mine.tld", token=None)
    assert config.load().token == "secret"


def test_a_token_is_kept_with_the_url_it_was_given_for(run: Run) -> None:
    run("config", "set", "token", "secret", "--url", "https://mine.tld", token=None)
    assert (str(config.load().url), config.load().token) == ("https://mine.tld", "secret")


def test_only_the_user_can_read_saved_files() -> None:
    config.save(token="secret")
    assert (mode(config.path()), mode(config.path().parent)) == (0o600, 0o700)
    config.path().chmod(0o644)
    config.path().parent.chmod(0o755)
    config.save(token="other")
    assert (mode(config.path()), mode(config.path().parent)) == (0o600, 0o700)
    assert [path.name for path in config.path().parent.iterdir()] == ["config.toml"]


def test_xdg_config_home_is_followed_when_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert config.path() == tmp_path / "elsewhere/draupnir/config.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert config.path() == home / ".config/draupnir/config.toml"


def test_saving_keeps_comments_and_unknown_keys() -> None:
    config.path().parent.mkdir(parents=True)
    config.path().write_text('# mine\nfuture = 1\nurl = "https://a.tld" # old\n\n[table]\nurl = "x"')
    config.save(url="https://b.tld", token="t")
    text = config.path().read_text()
    assert text.startswith('# mine\nfuture = 1\nurl = "https://b.tld"\n')
    assert tomllib.loads(text) == {"future": 1, "url": "https://b.tld", "token": "t", "table": {"url": "x"}}
    config.save(url=None)
    assert tomllib.loads(config.path().read_text()) == {"future": 1, "token": "t", "table": {"url": "x"}}


def test_a_layout_that_cannot_be_edited_safely_is_left_alone() -> None:
    config.path().parent.mkdir(parents=True)
    before = 'future = """\nurl = "https://inside.tld"\n"""\n'
    config.path().write_text(before)
    with pytest.raises(ConfigError, match="by hand"):
        config.save(url="https://b.tld")
    assert config.path().read_text() == before


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    config.path().parent.mkdir(parents=True)
    config.path().symlink_to(tmp_path / "dotfiles.toml")
    config.save(database="mine")
    assert config.path().is_symlink()
    assert tomllib.loads((tmp_path / "dotfiles.toml").read_text()) == {"database": "mine"}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_survives_being_written_as_toml(text: str) -> None:
    assert tomllib.loads(f"key = {config.toml_string(text)}\n") == {"key": text}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("url = ", "not valid TOML"), ("url = 3", "url is not a string"), ('url = "my-draupnir.tld"', "lacks http")],
)
def test_a_broken_file_is_reported_in_one_sentence(run: Run, text: str, complaint: str) -> None:
    config.path().parent.mkdir(parents=True)
    config.path().write_text(text)
    result = run("images", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert complaint in result.stderr


def test_a_directory_that_cannot_be_made_is_reported_in_one_sentence(run: Run, home: Path) -> None:
    (home / ".config").write_text("not a directory")
    result = run("config", "set", "database", "mine")
    assert result.exit_code == 1
    assert result.stderr.startswith("draupnir-client: Cannot read") or "Cannot make" in result.stderr


@pytest.mark.parametrize("token", ["", "  ", "two words", "line\nbreak", "ünicode"])
def test_a_token_that_a_header_cannot_contain_is_refused(run: Run, token: str) -> None:
    assert run("authenticate", given=token, token=None).exit_code == 1


def test_config_show_never_shows_the_token(run: Run) -> None:
    config.save(token="the-saved-secret")
    for form in ("table", "json"):
        result = run("config", "show", "--output", form, token=None)
        assert "the-saved-secret" not in result.stdout + result.stderr
        assert "token" in result.stdout
