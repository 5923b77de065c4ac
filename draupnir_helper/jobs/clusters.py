"""Starts the Postgres server of a finalise, runs SQL through psql, and stops it. Only the job can connect to it."""

from __future__ import annotations

import re
import secrets
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from draupnir_helper import postgres, walls
from draupnir_helper.jobs import damages, failures, preflight, programs, reports, triggers
from draupnir_helper.jobs.data_directories import control_data
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Rows
from draupnir_helper.jobs.sizes import Sizes

_LOG_LINES = 30
_IS_BOOTSTRAP = "SELECT oid = 10 FROM pg_catalog.pg_authid WHERE rolname = session_user"
# Our own sessions do not find objects of the data by name. walls.py has the options of every session of the job.
_OWN_SESSION = ("-c search_path=pg_catalog", "-c standard_conforming_strings=on", "-c work_mem=64MB")
_SQL = Path(__file__).with_name("sql")
_SINGLE_USER = """SET default_transaction_read_only = off;
UPDATE pg_authid SET rolcanlogin = true WHERE oid = 10;
SELECT rolname FROM pg_authid WHERE oid = 10;
"""
_ARGUMENT_CHARS = 100_000
_LINE_CHARS = 16 * 1024  # a longer line of the server's log is cut into several


class Cluster:
    """A running server on the sandbox's data directory; the job connects as its bootstrap superuser."""

    def __init__(self, major: int, directory: Path) -> None:
        self.major = major
        # The first start changes pg_control.
        self.sizes = Sizes(Path(postgres.PGDATA), control_data(major))
        self.superuser = "postgres"
        self.script_settings: Mapping[str, str] = {}
        self.directory = directory
        self._preload_libraries: list[str] = []
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @contextmanager
    def running(self, preload_libraries: list[str], rows: Rows) -> Iterator[None]:
        """Run the server until the end of the block, then stop it cleanly. Kill it if the block fails."""
        self._preload_libraries = preload_libraries
        try:
            self._start()
            # A role postgres that is not the bootstrap superuser may not demote the bootstrap superuser.
            asked = self._psql("template1", "-c", _IS_BOOTSTRAP, server_options=_OWN_SESSION)
            preflight.refuse_locale(asked.stderr, rows)
            if asked.stdout != "t\n":
                self._stop()
                self.superuser = self._read_superuser()
                self._start()
            yield
            self._stop()
        finally:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._process.wait()

    def restart(self, preload_libraries: list[str]) -> None:
        """Stop the server cleanly, and start it with these libraries."""
        self._stop()
        self._preload_libraries = preload_libraries
        self._start()

    def log_tail(self) -> str:
        """Return the last lines of the server's log."""
        return "\n".join(self._log)

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._write_files(), text=True, errors="replace", env={"LC_ALL": "C", "PATH": "/usr/bin"},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._await_ready()

    def _write_files(self) -> list[str]:
        """Write the server's configuration, and return its command line."""
        settings = postgres.finalise_settings(str(self.directory), self.sizes.of_job(self.major))
        for name, text in postgres.finalise_files(settings).items():
            (self.directory / name).write_text(text, encoding="utf-8")
        return postgres.command(self.major, str(self.directory), settings, self._preload_libraries)

    def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        # The private text of a failure has these lines. They quote the data, so they must not reach the journal.
        while line := self._process.stderr.readline(_LINE_CHARS):
            self._log.append(line.rstrip())

    def _await_ready(self) -> None:
        """Poll until postmaster.pid contains "ready", as pg_ctl does; Postgres offers no event to wait for."""
        assert self._process is not None
        pid_file = Path(postgres.PGDATA) / "postmaster.pid"
        while self._process.poll() is None:
            try:
                if pid_file.read_text(encoding="utf-8").splitlines()[7:8] == ["ready   "]:
                    return
            except FileNotFoundError:
                pass
            time.sleep(0.02)
        self._join_reader()
        if failures.out_of_room(self.log_tail()):
            raise JobError("no_room", reports.NO_ROOM, self.log_tail())
        if (found := damages.found(self.log_tail())) and found.path:
            raise damages.failure(self.major, found, "", self.log_tail())
        why = failures.of_server(self.major, self.log_tail())
        detail = (
            f"Postgres could not recover the data: {why}. Take another backup, with pg_basebackup or from a stopped "
            "server, with all of pg_wal, and upload it to a new image."
        )
        raise JobError("recovery_failed", detail, self.log_tail())

    def _read_superuser(self) -> str:
        """Return the name of the role with oid 10, and allow it to log in.

        This runs in single-user mode, which does not need the name.
        """
        server, *options = self._write_files()
        finished = subprocess.run(
            [server, "--single", *options, "template1"], input=_SINGLE_USER,
            capture_output=True, text=True, errors="surrogateescape", check=False,
            env={"LC_ALL": "C", "PATH": "/usr/bin"},
        )  # fmt: skip
        found = re.search(r'rolname = "(.*)"\t', finished.stdout)
        if found is None:
            detail = (
                "The data lack the superuser that initdb created (oid 10). Restore a dump of the source into a new "
                "cluster, and upload a backup of that cluster to a new image."
            )
            raise JobError("no_superuser", detail, finished.stderr)
        return found[1]

    def run_files(self, database: str, *paths: Path, **variables: str) -> list[str]:
        """Run our own SQL files in the database, in one session, and return the unaligned lines of output.

        The search_path has only Postgres's own functions and operators, so the data cannot replace them by name.
        """
        options = self._variables(variables)
        options += [part for path in (_SQL / "encoding.sql", *paths) for part in ("-f", str(path))]
        names = ", ".join(path.name for path in paths)
        finished = self._psql(database, *options, server_options=_OWN_SESSION)
        what = f"Draupnir's own {names} failed: {failures.of_statement(self.major, finished.stderr)}"
        answer = self._checked(finished, what, f"{names} in database {database}")
        # splitlines() would split at more characters than COPY escapes.
        return answer.removesuffix("\n").split("\n")

    def run_each(
        self, database: str, lines: Iterable[str], source: str = "<stdin>", **variables: str
    ) -> dict[int, str]:
        """Run our own statements in one session, and continue after errors; return the SQLSTATEs of errors by line.

        `source` is the file whose lines count: the input or a file that it includes. Raises JobError for damaged data.
        """
        options = self._variables(variables)
        options += ["-v", "ON_ERROR_STOP=0", "-f", str(_SQL / "encoding.sql"), "-f", "-"]
        finished = self._psql(database, *options, server_options=_OWN_SESSION, stdin="\n".join(lines))
        if finished.returncode != 0 or self.ran_out_of_room(finished):
            raise self._failure(finished, "The session of VACUUM, ANALYZE or REINDEX ended", f"database {database}")
        if damage := self.damage(finished.stderr):
            raise damage
        failed = failures.by_line(finished.stderr)
        if failed.keys() - {source}:
            what = f"Draupnir's own SQL failed: {failures.of_statement(self.major, finished.stderr)}"
            raise self._failure(finished, what, f"database {database}")
        return failed.get(source, {})

    def run_script(self, database: str, path: Path, after: Path) -> tuple[subprocess.CompletedProcess[str], bool]:
        """Run the uploader's script with psql, then in the same session the file that checks for open transactions.

        Return whether psql tried to start a program, too.
        """
        options = (triggers.TRACKING, *(_option(name, value) for name, value in self.script_settings.items()))
        command, environment = self._invocation(database, "-f", path.name, "-f", str(after), server_options=options)
        return programs.run(command, environment, path.parent)

    def accepts(self, settings: Mapping[str, str]) -> set[str]:
        """Return the names of the settings that the server accepts."""
        path = self.directory / "settings.sql"
        # Each setting is local to its statement, so that it does not change how the next one is read.
        lines = [
            f"SELECT {_literal(name)} FROM pg_catalog.set_config({_literal(name)}, {_literal(value)}, true);\n"  # noqa: S608 - quoted
            for name, value in settings.items()
        ]
        path.write_text("".join(lines), encoding="utf-8")
        options = ("-v", "ON_ERROR_STOP=0", "-f", str(path))
        return set(self._psql("template1", *options, server_options=_OWN_SESSION).stdout.split())

    def _variables(self, variables: Mapping[str, str]) -> list[str]:
        """Return psql's options for the variables. The kernel limits the length of one argument to 128 KiB."""
        options = []
        for name, value in variables.items():
            if len(value) < _ARGUMENT_CHARS:
                options += ["-v", f"{name}={value}"]
            else:
                path = self.directory / f"variable-{secrets.token_hex(4)}.sql"
                path.write_text(f"\\set {name} {_literal(value)}\n", encoding="utf-8")
                options += ["-f", str(path)]
        return options

    def _psql(
        self,
        database: str,
        *arguments: str,
        server_options: Sequence[str] = (),
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        command, environment = self._invocation(database, *arguments, server_options=server_options)
        return subprocess.run(
            command, env=environment, input=stdin,
            # Names in an SQL_ASCII database may not be UTF-8, and must return unchanged.
            capture_output=True, text=True, errors="surrogateescape", check=False,
        )  # fmt: skip

    def _invocation(
        self, database: str, *arguments: str, server_options: Sequence[str]
    ) -> tuple[list[str], dict[str, str]]:
        """Return the command line and the environment of psql."""
        command = [postgres.binary(self.major, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        command += ["-v", "VERBOSITY=verbose"]  # messages contain the SQLSTATE
        command += ["-h", str(self.directory), "-U", self.superuser, *arguments]
        # As an argument, psql would parse a name like "host=x" as a connection string.
        return command, _environment() | {"PGDATABASE": database, "PGOPTIONS": self._session_options(*server_options)}

    def _session_options(self, *more: str) -> str:
        return " ".join([*walls.session_options(self.major), *more])

    def _checked(self, finished: subprocess.CompletedProcess[str], what: str, where: str) -> str:
        """Return the output. Raises JobError, which publishes `what`; `where` appears only in the private text."""
        if finished.returncode == 0:
            return finished.stdout
        raise self._failure(finished, what, where)

    def _failure(self, finished: subprocess.CompletedProcess[str], what: str, where: str) -> JobError:
        private = self.private(f"{where}\n{finished.stderr}")
        if self.ran_out_of_room(finished):
            return JobError("no_room", reports.NO_ROOM, private)
        # A lost connection has no SQLSTATE, but the log has it.
        if damage := self.damage(finished.stderr) or self.damage(self.log_tail()):
            return damage
        detail = f"{what}. The upload is retained. `draupnir-client images show ID` shows the full error."
        return JobError("cleaning_failed", detail, private)

    def damage(self, text: str) -> JobError | None:
        """Return the failure if psql or the log reports damaged data, with the name of the relation if possible."""
        found = damages.found(text)
        if found is None:
            return None
        which = f"oid = {found.database}" if found.database else "datallowconn"
        query = f"SELECT datname FROM pg_catalog.pg_database WHERE {which}"  # noqa: S608 - a number
        listing = ("-c", r"\encoding SQL_ASCII", "-c", query)  # names as bytes, as in admit.sql
        names = self._psql("template1", *listing, server_options=_OWN_SESSION).stdout.removesuffix("\n").split("\n")
        values = {name: str(value) for name, value in found._asdict().items()}
        options = [part for name, value in values.items() for part in ("-v", f"{name}={value}")]
        file = Path(__file__).with_name("sql") / "damaged.sql"
        answers = (self._psql(name, *options, "-f", str(file), server_options=_OWN_SESSION).stdout for name in names)
        relation = next((answer.strip() for answer in answers if answer.strip()), "")
        return damages.failure(self.major, found, relation, self.private(text))

    def private(self, text: str) -> str:
        """Return the private text of a failure: a program's output, and the end of the server's log."""
        return f"{text.strip()}\n\nEnd of the server's log:\n{self.log_tail()}\n"

    def ran_out_of_room(self, finished: subprocess.CompletedProcess[str]) -> bool:
        """Return whether the disk was full; a server that cannot write its log exits before it can report to psql."""
        return failures.out_of_room(finished.stderr) or failures.out_of_room(self.log_tail())

    def _stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait()
        self._join_reader()
        if control_data(self.major).get("Database cluster state") != "shut down":
            raise JobError("unclean_stop", "Postgres did not stop cleanly; finalise again.", self.log_tail())

    def _join_reader(self) -> None:
        if self._reader is not None:
            self._reader.join(timeout=5)


def _option(name: str, value: str) -> str:
    """Return a setting as an option in PGOPTIONS, in which white space separates options."""
    return "-c " + re.sub(r"([\s\\])", r"\\\1", f"{name}={value}")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def array(values: Iterable[str]) -> str:
    """Return a Postgres array literal."""
    return "{" + ",".join(f'"{value}"' for value in values) + "}"


def line(command: str, oid: int) -> str:
    """Return a line for run_each: the command with the name of the relation, if the relation still exists."""
    sql = f"SELECT format('{command} %s', oid::regclass) FROM pg_class WHERE oid = {oid:d}"  # noqa: S608 - our own texts
    return f"{sql} \\gexec"


def _environment() -> dict[str, str]:
    return {
        "PATH": "/usr/bin",
        "LC_ALL": "C.UTF-8",
        # The API and the script use UTF-8; psql would assume the encoding of the database.
        "PGCLIENTENCODING": "UTF8",
        "PGCONNECT_TIMEOUT": "60",
        "HOME": "/nonexistent",
        "PSQLRC": "/dev/null",
    }
