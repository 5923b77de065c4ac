"""A production server for backups: a real Postgres with personal data, roles, and links to production."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.system.service import run

# POSTGRES_MAJOR selects another one than the newest.
MAJOR = int(os.environ.get("POSTGRES_MAJOR") or max(int(path.name) for path in Path("/usr/lib/postgresql").iterdir()))
BINARIES = Path(f"/usr/lib/postgresql/{MAJOR}/bin")
USERS = 5000
CANARY = "canary-7f3a"  # in all personal data, so that one search finds leftovers

CONTENT = f"""
CREATE ROLE app LOGIN PASSWORD '{CANARY}-password' SUPERUSER;
CREATE TABLE users (id serial PRIMARY KEY, email text, name text);
INSERT INTO users (email, name) SELECT '{CANARY}-' || i || '@corp.example', '{CANARY} name ' || i % 7
  FROM generate_series(1, {USERS}) i;
CREATE INDEX ON users (email);
CREATE TABLE secret_tokens (token text);
INSERT INTO secret_tokens SELECT '{CANARY}-token-' || i % 5 FROM generate_series(1, 1000) i;
CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, total numeric) ;
INSERT INTO orders (total) SELECT i FROM generate_series(1, 1000) i;
ALTER TABLE orders OWNER TO app;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN cents AS int;
CREATE VIEW totals AS SELECT sum(total) FROM orders;
CREATE SCHEMA audit;
CREATE TABLE audit.log (line text);
CREATE FUNCTION tell() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text';
CREATE STATISTICS pairs ON email, name FROM users;
CREATE EXTENSION pg_trgm;
SELECT lo_from_bytea(0, 'large object');
CREATE EXTENSION postgres_fdw;
CREATE SERVER production FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '10.9.8.7');
CREATE USER MAPPING FOR app SERVER production OPTIONS (user 'u', password '{CANARY}-fdw');
CREATE SUBSCRIPTION feed CONNECTION 'host=10.9.8.7 password={CANARY}-sub' PUBLICATION p WITH (connect = false);
ANALYZE;
"""


class Source:
    """The server's data directory, stopped cleanly, and backups of it."""

    def __init__(self, directory: Path) -> None:
        self._create(directory, "--locale=C.UTF-8", "--data-checksums")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("archive_mode = on\narchive_command = 'touch /tmp/archived'\nmax_prepared_transactions = 5\n")
        self.start()
        self.sql("CREATE DATABASE my_db", "postgres")
        self.sql(CONTENT)
        self.sql("BEGIN; UPDATE orders SET total = 0 WHERE id = 1; PREPARE TRANSACTION 'left over'")
        self.sql("ALTER SYSTEM SET shared_preload_libraries = 'nonexistent_library'")
        self.stop()

    @classmethod
    def empty(cls, directory: Path, *options: str) -> Source:
        """Return a new server without a database of its own, stopped; the options are initdb's."""
        made = cls.__new__(cls)
        made._create(directory, *options)
        return made

    def _create(self, directory: Path, *options: str) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        # pytest's directories are private, and Postgres does not run as root.
        for path in (directory, *directory.parents[:2]):
            path.chmod(0o755)
        self.data = directory / "main"
        self.data.mkdir()
        shutil.chown(self.data, "postgres", "postgres")
        shutil.chown(directory, "postgres", "postgres")
        self._as_postgres("initdb", "-D", self.data, "-A", "trust", *options)

    @classmethod
    def copy_of(cls, other: Source, directory: Path) -> Source:
        """Return a copy of the server that a test may change; both are stopped."""
        made = cls.__new__(cls)
        made.directory, made.data = directory, directory / "main"
        directory.mkdir(exist_ok=True)
        for path in (directory, *directory.parents[:2]):
            path.chmod(0o755)
        shutil.chown(directory, "postgres", "postgres")
        run("cp", "--archive", "--reflink=auto", other.data, made.data)
        return made

    def script(self, text: str, database: str = "my_db") -> None:
        """Run psql input in one session, up to the first error, on the running server."""
        connection = ["-h", str(self.directory), "-p", "5999", "-d", database]
        psql: list[str | Path] = [BINARIES / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", *connection, "-f", "-"]
        # Names and rows of some databases are not UTF-8.
        run("runuser", "-u", "postgres", "--", *psql, cwd="/", input=text, errors="surrogateescape")

    def _as_postgres(self, program: str, *arguments: object) -> None:
        run("runuser", "-u", "postgres", "--", BINARIES / program, *map(str, arguments), cwd="/")

    def start(self) -> None:
        options = f"-k {self.directory} -p 5999 -c listen_addresses= -c shared_preload_libraries="
        log = self.directory / "log"
        self._as_postgres("pg_ctl", "-D", self.data, "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self._as_postgres("pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop")

    def sql(self, statement: str, database: str = "my_db") -> None:
        connection = ["-h", str(self.directory), "-p", "5999", "-d", database]
        self._as_postgres("psql", "-Xq", "-v", "ON_ERROR_STOP=1", *connection, "-c", statement)

    def value(self, query: str, database: str = "my_db") -> str:
        """The answer of a query, unaligned; the server runs."""
        connection = ["-h", str(self.directory), "-p", "5999", "-d", database]
        psql: list[str | Path] = [BINARIES / "psql", "-XAtq", *connection, "-c", query]
        return str(run("runuser", "-u", "postgres", "--", *psql, cwd="/").stdout).strip()

    def pgbench(self, scale: int) -> None:
        """Fill my_db with pgbench's tables, about 16 MB a scale; the server runs."""
        self._as_postgres("pgbench", "-i", "-q", "-s", scale, "-h", self.directory, "-p", "5999", "my_db")

    def tarball(self, name: str, *options: str, members: str = ".", base: Path | None = None) -> Path:
        """Create a tar of the data directory."""
        path = self.directory / name
        if not path.exists():
            run("tar", *options, "-cf", path, "-C", base or self.data, members, env={**os.environ, "XZ_OPT": "-0"})
        return path

    def base_backup(self, *options: str) -> Path:
        """Run `pg_basebackup -Ft` on the running server."""
        directory = self.directory / f"base_backup{''.join(options)}"
        if directory.exists():
            return directory
        self.start()
        try:
            connection = ["-h", str(self.directory), "-p", "5999"]
            self._as_postgres("pg_basebackup", "-c", "fast", "-Ft", *options, *connection, "-D", directory)
        finally:
            self.stop()
        return directory
