"""The output of `env` connects psql and Python's drivers; tests/long has other languages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.system.drivers import ANYTHING, PLAIN, ROLE, WHERE, Place, place_of
from tests.system.service import Service

# A shell changes `*?[` and double blanks in an unquoted eval, and a line cannot have a newline.
SHELL = "a'\"$(touch pwned)`x`\\n =#%&+;:@/{} é"
SERVICE = "a'\"$(touch pwned)`x`\\n =#%&+;:@/?[]{}* é"
PSYCOPG = """
import os, sys, psycopg
with psycopg.connect(os.environ.get("DATABASE_URL", "")) as connection:
    print(connection.execute(sys.argv[1]).fetchone()[0], end="")
"""
ASYNCPG = """
import asyncio, os, sys, asyncpg
async def main():
    connection = await asyncpg.connect(os.environ.get("DATABASE_URL"))
    print(await connection.fetchval(sys.argv[1]), end="")
    await connection.close()
asyncio.run(main())
"""


@pytest.fixture(params=["draupnir", ROLE], ids=["draupnir", "unusual role"])
def place(service: Service, instance: int, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    return place_of(service, instance, tmp_path).with_role(request.param)


def test_psql_connects_with_the_line_for_the_shell(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    place.create_database(SHELL)
    for database in (PLAIN, SHELL):
        line = place.env("shell", database)
        for form in ("$(echo_line)", '"$(echo_line)"'):
            program = f'echo_line() {{ printf "%s\\n" "$LINE"; }}; eval {form} && exec psql -XAtc "$SQL"'
            told = place.ask("sh", "-c", program, environment={"LINE": line, "SQL": WHERE}, cwd=folder)
            assert told == f"{place.answer(database)}\n"
    assert list(folder.iterdir()) == []


def test_psql_connects_with_the_url(place: Place) -> None:
    place.create_database(ANYTHING)
    for database in (PLAIN, ANYTHING):
        assert place.ask("psql", "-XAtc", WHERE, place.env("url", database)) == f"{place.answer(database)}\n"


def test_psql_connects_with_the_service(place: Place) -> None:
    place.create_database(SERVICE)
    for database in (PLAIN, SERVICE):
        told = place.ask("psql", "-XAtc", WHERE, environment=place.service_file(database))
        assert told == f"{place.answer(database)}\n"


@pytest.mark.parametrize("driver", [PSYCOPG, ASYNCPG], ids=["psycopg", "asyncpg"])
def test_drivers_of_python_connect_with_the_url_and_with_the_variables(place: Place, driver: str) -> None:
    place.create_database(ANYTHING)
    for database in (PLAIN, ANYTHING):
        for environment in ({"DATABASE_URL": place.env("url", database)}, place.variables(database)):
            assert place.ask(sys.executable, "-c", driver, WHERE, environment=environment) == place.answer(database)


def test_psycopg_connects_with_the_service(place: Place) -> None:
    environment = place.service_file(PLAIN)
    assert place.ask(sys.executable, "-c", PSYCOPG, WHERE, environment=environment) == place.answer(PLAIN)
