"""Shared by the tests of the formats of `env`: names that a format may break, and an instance that has them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.system.service import Service, run

# The user, whether TLS is used, and the address; the name of the database last, because it may have any character.
WHERE = "SELECT current_user || ' ' || ssl || ' ' || current_database() FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
PLAIN = "my_db"
# All formats except dotenv can express this name of a role.
ROLE = 'it\'s "$(touch pwned)" `x`\\n =#%&+;:@/{} é'
# A name that URLs and JSON can carry; the other formats carry less.
ANYTHING = "a'\"$(touch pwned)`x`\\n\n=#%&+;:@/?[]{}* é"
HOME = "ho'\"$(x) me=#%&+"


@dataclass(frozen=True)
class Place:
    """An instance, the home directory of a user who connects to it, and the role that they connect as."""

    service: Service
    instance_id: int
    home: Path
    role: str = "draupnir"

    def with_role(self, name: str) -> Place:
        """Return the same place for a role of that name, which is created."""
        if name != "draupnir":
            self.service.psql(self.instance_id, f"CREATE ROLE {_quoted(name)} LOGIN")
        return replace(self, role=name)

    def env(self, form: str, database: str) -> str:
        """Return the output of `env`, without the newline at its end."""
        arguments = ("env", str(self.instance_id), "--format", form, "--database", database, "--role", self.role)
        # The cache is below the home, whose name has special characters.
        return self.service.client(*arguments, HOME=str(self.home)).stdout.removesuffix("\n")

    def service_file(self, database: str) -> dict[str, str]:
        """Return the variables that name a service file with the output of `env`."""
        path = self.home / "pg_service.conf"
        path.write_text(self.env("service", database))
        name = f"draupnir-{self.instance_id}" + ("" if self.role == "draupnir" else f"-{self.role}")
        return {"PGSERVICEFILE": str(path), "PGSERVICE": name}

    def variables(self, database: str) -> dict[str, str]:
        """Return the PG* variables by name."""
        found: dict[str, str] = json.loads(self.env("json", database))
        return found

    def ask(self, *command: str | Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """Run a program with only this environment, without the test's PG* variables, and return its output."""
        inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return run(*command, env={**inherited, "HOME": str(self.home), **(environment or {})}, cwd=cwd).stdout

    def create_database(self, name: str) -> None:
        """Create a database, which goes with the instance."""
        self.service.psql(self.instance_id, f"CREATE DATABASE {_quoted(name)}")

    def answer(self, database: str) -> str:
        """Return the expected answer to WHERE."""
        return f"{self.role} true {database}"


def place_of(service: Service, instance_id: int, folder: Path) -> Place:
    """Return a home in `folder`."""
    home = folder / HOME
    home.mkdir()
    return Place(service, instance_id, home)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
