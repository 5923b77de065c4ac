"""What `env` prints connects the drivers of other languages; the programs beside this file are what users write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.system.drivers import ANYTHING, PLAIN, WHERE, Place, answer_of
from tests.system.test_drivers import *  # noqa: F403

PROGRAMS = Path(__file__).parent / "drivers"
JAVA_CLASSES = "/usr/share/java/postgresql.jar"
NODE_MODULES = Path("/usr/local/lib/node_modules")


def test_node_postgres(place: Place) -> None:
    # It decodes the path of a URL with a function that leaves these encoded.
    name = ANYTHING.translate(dict.fromkeys(map(ord, "#/:?@")))
    with place.database(name):
        for database in (PLAIN, name):
            url = place.env("url", database)
            assert place.ask(
                "node", PROGRAMS / "node_postgres.cjs", WHERE, environment={"DATABASE_URL": url}
            ) == answer_of(database)


def test_node_postgres_with_dotenv(place: Place, tmp_path: Path) -> None:
    name = "it's =%&+;(x) é"
    simple = replace(place, home=tmp_path / "it's =#%&+;@(x) é")
    simple.home.mkdir()
    with simple.database(name):
        (tmp_path / ".env").write_text(simple.env("dotenv", name))
        command = ("node", f"--env-file={tmp_path}/.env", PROGRAMS / "node_postgres.cjs", WHERE)
        assert simple.ask(*command) == answer_of(name)


@pytest.mark.skipif(not (NODE_MODULES / "postgres").exists(), reason="this computer had no npm for the test machine")
def test_postgres_js(place: Place) -> None:
    with place.database(ANYTHING):
        for database in (PLAIN, ANYTHING):
            environment = {**place.variables(database), "NODE_PATH": str(NODE_MODULES)}
            assert place.ask("node", PROGRAMS / "postgres_js.cjs", WHERE, environment=environment) == answer_of(
                database
            )


def test_pgjdbc(place: Place) -> None:
    java = ("java", "-cp", JAVA_CLASSES, PROGRAMS / "Jdbc.java", WHERE)
    with place.database(ANYTHING):
        for database in (PLAIN, ANYTHING):
            url = place.env("jdbc", database)
            assert place.ask(*java, environment={"JDBC_URL": url}) == answer_of(database)
            with_pkcs12 = url.replace("client.pk8", "client.p12&sslpassword=draupnir")
            assert place.ask(*java, environment={"JDBC_URL": with_pkcs12}) == answer_of(database)


@pytest.mark.parametrize("driver", ["lib_pq", "pgx"])
def test_drivers_of_go(place: Place, tmp_path: Path, driver: str) -> None:
    gopath = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(tmp_path / "cache")}
    place.ask("go", "build", "-o", tmp_path / driver, PROGRAMS / f"{driver}.go", environment=gopath)
    _connects(place, tmp_path / driver)


def test_ruby_pg(place: Place) -> None:
    _connects(place, "ruby", PROGRAMS / "ruby_pg.rb")


def test_sqlalchemy_connects_with_the_url(place: Place) -> None:
    """It does not decode the name of the database."""
    url = {"DATABASE_URL": place.env("url", PLAIN)}
    assert place.ask("python3", PROGRAMS / "with_sqlalchemy.py", WHERE, environment=url) == answer_of(PLAIN)


@pytest.mark.parametrize("program", ["with_django.py", "with_pg8000.py", "with_sqlalchemy.py"])
def test_programs_that_connect_with_the_variables(place: Place, program: str) -> None:
    with place.database(ANYTHING):
        for database in (PLAIN, ANYTHING):
            told = place.ask("python3", PROGRAMS / program, WHERE, environment=place.variables(database))
            assert told == answer_of(database)


def _connects(place: Place, *program: str | Path) -> None:
    """Return the program connects with the URL, and with the variables."""
    with place.database(ANYTHING):
        for database in (PLAIN, ANYTHING):
            for environment in ({"DATABASE_URL": place.env("url", database)}, place.variables(database)):
                assert place.ask(*program, WHERE, environment=environment) == answer_of(database)
