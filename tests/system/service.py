"""The installed service through its interfaces: HTTP, scp, the command line, psql; imports none of our packages."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

URL = "http://127.0.0.1:8432"
SECRET = Path("/etc/draupnir/shared_secret")
ANONYMISE = "\\c my_db\nDELETE FROM secret_tokens;\nUPDATE users SET email = 'user' || id || '@example.com', name = '';"

JSON = dict[str, Any]


def run(*command: str | Path, ok: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; on failure fail the test with its output, unless `ok` is false."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False, **options)
    if ok:
        assert done.returncode == 0, f"{command} → {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@contextmanager
def credentials(instance: JSON, database: str = "my_db") -> Iterator[str]:
    """Provide a connection string for a created instance; its files exist during the block."""
    attributes = instance["attributes"]
    found = attributes["credentials"]
    with tempfile.TemporaryDirectory() as directory:
        for name in ("ca_certificate", "client_certificate", "client_key"):
            path = Path(directory, name)
            path.touch(0o600)
            path.write_text(found[name])
        yield (
            f"host={attributes['hostname']} hostaddr=127.0.0.1 port={attributes['port']} user=draupnir"
            f" dbname={database} sslmode=verify-full sslrootcert={directory}/ca_certificate"
            f" sslcert={directory}/client_certificate sslkey={directory}/client_key"
        )


@dataclass
class Service:
    """A client of the service with the shared secret; `key` is for uploads."""

    key: Path
    token: str = field(default_factory=lambda: SECRET.read_text().strip())

    def ask(self, method: str, path: str, attributes: JSON | None = None, **options: Any) -> httpx.Response:
        """Send a request; `attributes` become the body."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        headers |= options.pop("headers", {})
        body = None if attributes is None else {"data": {"attributes": attributes}}
        with httpx.Client(base_url=URL, timeout=180) as client:
            return client.request(method, path, json=body, headers=headers, **options)

    def create_image(self, script: str = ANONYMISE) -> int:
        answer = self.ask("POST", "/images", {"backed_up_at": "2017-05-01T12:00:00Z", "anonymisation_script": script})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["data"]["id"])

    def upload(self, image_id: int, *files: Path, ok: bool = True, recursive: bool = False) -> Any:
        """Run exactly the brief's scp line, plus options for an unattended run."""
        options = ["-r"] if recursive else []
        target = f"upload@localhost:/draupnir/image_uploads/{image_id}"
        return run("scp", *self.ssh_options(), *options, *files, target, ok=ok)

    def ssh_options(self) -> list[str]:
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"]
        return ["-i", str(self.key), *(part for option in options for part in ("-o", option))]

    def finalise(self, image_id: int, **options: Any) -> httpx.Response:
        return self.ask("POST", f"/images/{image_id}/done", **options)

    def make_image(self, backup: Path, script: str = ANONYMISE) -> int:
        """Return a ready image of the backup."""
        image_id = self.create_image(script)
        self.upload(image_id, backup)
        answer = self.finalise(image_id)
        assert answer.status_code == 200, answer.text
        return image_id

    def image(self, image_id: int) -> JSON:
        answer = self.ask("GET", f"/images/{image_id}")
        assert answer.status_code == 200, answer.text
        attributes: JSON = answer.json()["data"]["attributes"]
        return attributes

    def create_instance(self, image_id: int) -> JSON:
        answer = self.ask("POST", "/instances", {"image_id": image_id})
        assert answer.status_code == 201, answer.text
        data: JSON = answer.json()["data"]
        return data

    def destroy_image(self, image_id: int) -> None:
        assert self.ask("DELETE", f"/images/{image_id}?cascade=true").status_code == 204

    def destroy_instance(self, instance_id: int) -> None:
        assert self.ask("DELETE", f"/instances/{instance_id}").status_code == 204

    def client(self, *arguments: str, ok: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run draupnir-client with the shared secret."""
        return run(
            "draupnir-client", *arguments, ok=ok, env={**os.environ, "DRAUPNIR_TOKEN": self.token, **environment}
        )

    def environment(self, instance_id: int) -> Mapping[str, str]:
        """Return the variables of `draupnir-client env`."""
        found: dict[str, str] = json.loads(self.client("--output", "json", "env", str(instance_id)).stdout)
        return {**os.environ, **found}

    def psql(
        self, instance_id: int, sql: str, database: str = "my_db", *, ok: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one statement with psql, unaligned, as the instance's user."""
        options = {**self.environment(instance_id), "PGDATABASE": database, "PGCONNECT_TIMEOUT": "30", **environment}
        return run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, ok=ok, env=options)

    def answer(self, instance_id: int, sql: str, database: str = "my_db") -> str:
        return self.psql(instance_id, sql, database).stdout.strip()


class Session:
    """A psql process that stays connected."""

    def __init__(self, service: Service, instance_id: int, database: str = "my_db") -> None:
        environment = {**service.environment(instance_id), "PGDATABASE": database}
        self._psql = subprocess.Popen(
            ["psql", "-XAtq"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def answer(self, sql: str) -> str:
        """Run a statement that returns one line. Return an empty text if the connection is lost."""
        assert self._psql.stdin is not None
        assert self._psql.stdout is not None
        self._psql.stdin.write(f"{sql}\n")
        self._psql.stdin.flush()
        return self._psql.stdout.readline().strip()

    def close(self) -> None:
        """Sign out."""
        self._psql.communicate(timeout=300)
