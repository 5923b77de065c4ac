"""What the tests of the formats of `env` share: names that a format may break, and an instance that has them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.service import Service, run

# Who is signed in, whether by TLS, and where; the name of the database last, as it may have anything in it.
WHERE = "SELECT current_user || ' ' || ssl || ' ' || current_database() FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
PLAIN = "my_db"
# What URLs and JSON carry; the other formats carry less of it.
ANYTHING = "a'\"$(touch pwned)`x`\\n\n=#%&+;:@/?[]{}* é"
HOME = "ho'\"$(x) me=#%&+"


@dataclass(frozen=True)
class Place:
    """An instance, and the home directory of somebody who connects to it."""

    service: Service
    instance_id: int
    home: Path

    def env(self, form: str, database: str) -> str:
        """What `env` prints, without the newline at its end."""
        arguments = ("env", str(self.instance_id), "--format", form, "--database", database)
        # The cache is below the home, whose name has in it what a path may have.
        return self.service.client(*arguments, HOME=str(self.home)).stdout.removesuffix("\n")

    def service_file(self, database: str) -> dict[str, str]:
        """The variables that name a service file with what `env` prints."""
        path = self.home / "pg_service.conf"
        path.write_text(self.env("service", database))
        return {"PGSERVICEFILE": str(path), "PGSERVICE": f"draupnir-{self.instance_id}"}

    def variables(self, database: str) -> dict[str, str]:
        """The PG* variables by name."""
        found: dict[str, str] = json.loads(self.env("json", database))
        return found

    def ask(self, *command: str | Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """What a program prints that has only this environment, and no PG* variable of the test."""
        inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return run(*command, env={**inherited, "HOME": str(self.home), **(environment or {})}, cwd=cwd).stdout

    @contextmanager
    def database(self, name: str) -> Iterator[None]:
        """A database of that name."""
        quoted = '"' + name.replace('"', '""') + '"'
        self.service.psql(self.instance_id, f"CREATE DATABASE {quoted}")
        try:
            yield
        finally:
            self.service.psql(self.instance_id, f"DROP DATABASE {quoted} WITH (FORCE)")


def answer_of(database: str) -> str:
    """What WHERE answers there."""
    return f"draupnir true {database}"


def place_of(service: Service, instance_id: int, folder: Path) -> Place:
    """A home in `folder`."""
    home = folder / HOME
    home.mkdir()
    return Place(service, instance_id, home)
