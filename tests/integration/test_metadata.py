from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from draupnir import settings
from draupnir.metadata import __main__ as program
from draupnir.metadata import cluster
from tests.postgres import give_away, unprivileged


@pytest.fixture
def place() -> Iterator[Path]:
    """Provide a world-accessible directory of the unprivileged user."""
    directory = Path(tempfile.mkdtemp(prefix="draupnir-test-"))
    give_away(directory)
    yield directory
    shutil.rmtree(directory)


def as_nobody(act: Callable[[], object]) -> int:
    """Run in a child that is not root, because Postgres refuses root; return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            if who := unprivileged():
                os.setgid(who["group"])
                os.setuid(who["user"])
            act()
        except BaseException:  # noqa: BLE001 - the child must not continue as the test run
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def answers(place: Path) -> None:
    """Start the cluster like the unit, and connect like the daemon."""
    data = place / "metadata"
    major = int((data / "PG_VERSION").read_text())
    argv = cluster.command(cluster.installed_majors()[major], data, place)
    who = unprivileged()
    with subprocess.Popen(
        argv, stderr=subprocess.PIPE, text=True, cwd=place, user=who.get("user"), group=who.get("group")
    ) as postgres:
        assert postgres.stderr is not None
        for line in postgres.stderr:
            if "ready to accept connections" in line:
                break
        with psycopg.connect(f"host={place} dbname=draupnir user=draupnir") as connection:
            assert connection.execute("SHOW data_checksums").fetchone() == ("on",)
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
            assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        postgres.terminate()
        postgres.stderr.read()


def test_a_cluster_is_made_once_and_used_from_then_on(place: Path) -> None:
    data = place / "metadata"
    # Leftovers of a crashed preparation, and a directory created by the unit, do no harm.
    (place / "metadata.new" / "base").mkdir(parents=True)
    give_away(place / "metadata.new" / "base")
    give_away(place / "metadata.new")
    data.mkdir()
    assert as_nobody(lambda: cluster.prepare(data)) == 0
    assert sorted(path.name for path in place.iterdir()) == ["metadata"]
    made = (data / "global/pg_control").stat().st_ino
    answers(place)
    assert as_nobody(lambda: cluster.prepare(data)) == 0
    assert (data / "global/pg_control").stat().st_ino == made


def test_a_preparation_that_fails_leaves_nothing_that_looks_like_a_cluster(tmp_path: Path) -> None:
    binaries = tmp_path / "postgresql/99/bin"
    binaries.mkdir(parents=True)
    (binaries / "initdb").write_text("#!/bin/sh\necho 'no space left' >&2; exit 1\n")
    (binaries / "initdb").chmod(0o755)
    with pytest.raises(cluster.PreparationFailed, match="no space left"):
        cluster.prepare(tmp_path / "metadata", tmp_path / "postgresql")
    assert not (tmp_path / "metadata").exists()


def test_the_newest_server_makes_a_new_cluster(tmp_path: Path) -> None:
    for major in ("9.6", "15", "17", "common"):
        (tmp_path / major / "bin").mkdir(parents=True)
        (tmp_path / major / "bin/initdb").touch()
    assert max(cluster.installed_majors(tmp_path)) == 17


def test_a_cluster_without_its_server_names_the_package(tmp_path: Path) -> None:
    data = tmp_path / "metadata"
    data.mkdir()
    (data / "PG_VERSION").write_text("13\n")
    with pytest.raises(cluster.PreparationFailed, match="apt install postgresql-13"):
        cluster.prepare(data, tmp_path)


def test_a_missing_server_is_reported_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(cluster.PreparationFailed, match="apt install postgresql"):
        cluster.prepare(tmp_path / "metadata", tmp_path)


def test_a_directory_without_a_cluster_is_left_unchanged(tmp_path: Path) -> None:
    data = tmp_path / "metadata"
    data.mkdir()
    (data / "letters").touch()
    with pytest.raises(cluster.PreparationFailed, match="neither empty nor"):
        cluster.prepare(data)
    assert (data / "letters").exists()


@pytest.mark.parametrize(
    ("text", "code"), [("", 0), ('database_url = "host=db"\n', 1), ("min_instance_port = 9999\n", 255)]
)
def test_wanted_answers_as_an_exec_condition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    loaded = settings.load
    monkeypatch.setattr(settings, "load", lambda: loaded(path))
    assert program.main(["--wanted"]) == code


def test_unknown_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--help"]) == 2
    assert "usage" in capsys.readouterr().err
