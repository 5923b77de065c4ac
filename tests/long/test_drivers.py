"""The output of `env` connects the drivers of other languages. The programs beside this file are those of users."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.system.drivers import ANYTHING, PLAIN, WHERE, Place
from tests.system.service import Service, run
from tests.system.test_drivers import *  # noqa: F403

PROGRAMS = Path(__file__).parent / "drivers"
JAVA_CLASSES = "/usr/share/java/postgresql.jar"
NODE_MODULES = Path("/usr/local/lib/node_modules")


def test_node_postgres(place: Place) -> None:
    # It decodes the path of a URL with a function that leaves these encoded.
    name = ANYTHING.translate(dict.fromkeys(map(ord, "#/:?@")))
    place.create_database(name)
    for database in (PLAIN, name):
        url = place.env("url", database)
        assert place.ask(
            "node", PROGRAMS / "node_postgres.cjs", WHERE, environment={"DATABASE_URL": url}
        ) == place.answer(database)


def test_node_postgres_with_dotenv(service: Service, instance: int, tmp_path: Path) -> None:
    name, home = "it's =%&+;(x) é", tmp_path / "it's =#%&+;@(x) é"
    home.mkdir()
    place = Place(service, instance, home).with_role("it's =#%&+;:@(x)/? é")
    place.create_database(name)
    (tmp_path / ".env").write_text(place.env("dotenv", name))
    command = ("node", f"--env-file={tmp_path}/.env", PROGRAMS / "node_postgres.cjs", WHERE)
    assert place.ask(*command) == place.answer(name)


@pytest.mark.skipif(not (NODE_MODULES / "postgres").exists(), reason="this computer had no npm for the test machine")
def test_postgres_js(place: Place) -> None:
    place.create_database(ANYTHING)
    for database in (PLAIN, ANYTHING):
        environment = {**place.variables(database), "NODE_PATH": str(NODE_MODULES)}
        assert place.ask("node", PROGRAMS / "postgres_js.cjs", WHERE, environment=environment) == place.answer(database)


def test_pgjdbc(place: Place) -> None:
    java = ("java", "-cp", JAVA_CLASSES, PROGRAMS / "Jdbc.java", WHERE)
    place.create_database(ANYTHING)
    for database in (PLAIN, ANYTHING):
        url = place.env("jdbc", database)
        assert place.ask(*java, environment={"JDBC_URL": url}) == place.answer(database)
        with_pkcs12 = url.replace("client.pk8", "client.p12&sslpassword=draupnir")
        assert place.ask(*java, environment={"JDBC_URL": with_pkcs12}) == place.answer(database)


@pytest.fixture(scope="module", params=["lib_pq", "pgx"])
def go_program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the program, which takes a while."""
    folder = tmp_path_factory.mktemp("go")
    gopath = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(folder / "cache")}
    run("go", "build", "-o", folder / "program", PROGRAMS / f"{request.param}.go", env={**os.environ, **gopath})
    return folder / "program"


def test_drivers_of_go(place: Place, go_program: Path) -> None:
    _connects(place, go_program)


def test_ruby_pg(place: Place) -> None:
    _connects(place, "ruby", PROGRAMS / "ruby_pg.rb")


def test_sqlalchemy_connects_with_the_url(place: Place) -> None:
    """SQLAlchemy does not decode the name of the database."""
    url = {"DATABASE_URL": place.env("url", PLAIN)}
    assert place.ask("python3", PROGRAMS / "with_sqlalchemy.py", WHERE, environment=url) == place.answer(PLAIN)


@pytest.mark.parametrize("program", ["with_django.py", "with_pg8000.py", "with_sqlalchemy.py"])
def test_programs_that_connect_with_the_variables(place: Place, program: str) -> None:
    place.create_database(ANYTHING)
    for database in (PLAIN, ANYTHING):
        told = place.ask("python3", PROGRAMS / program, WHERE, environment=place.variables(database))
        assert told == place.answer(database)


def _connects(place: Place, *program: str | Path) -> None:
    """Check that the program connects with the URL, and with the variables."""
    place.create_database(ANYTHING)
    for database in (PLAIN, ANYTHING):
        for environment in ({"DATABASE_URL": place.env("url", database)}, place.variables(database)):
            assert place.ask(*program, WHERE, environment=environment) == place.answer(database)
