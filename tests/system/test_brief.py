"""The original brief, word for word: its routes, its JSON, its scp line, its command lines."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.system.backups import CANARY
from tests.system.service import URL, Service, run

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
BODY = """{
  "data": {
    "type": "images",
    "attributes": {
      "backed_up_at": "2017-05-01T12:00:00Z",
      "anonymisation_script": "\\\\c my_db\\nDELETE FROM secret_tokens;"
    }
  }
}"""


def curl(service: Service, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """Return the brief's requests, header by header, with curl."""
    headers = ["-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {service.token}"]
    data = ["-d", body] if body is not None else []
    done = run("curl", "-sS", "-X", method, *headers, *data, "-w", "\n%{http_code}", URL + path)
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def test_the_brief_from_the_first_request_to_the_last(service: Service, backup: Path, tmp_path: Path) -> None:
    status, text = curl(service, "POST", "/images", BODY)
    assert status == 201, text
    image = json.loads(text)["data"]
    assert image["type"] == "images"
    assert isinstance(image["id"], int)
    attributes = image["attributes"]
    assert attributes["backed_up_at"] == "2017-05-01T12:00:00Z"
    assert TIME.fullmatch(attributes["created_at"])
    assert TIME.fullmatch(attributes["updated_at"])
    assert attributes["ready"] is False

    # scp -i key.pem db_backup.tar.gz upload@my-draupnir.tld:/draupnir/image_uploads/1
    (tmp_path / "db_backup.tar.gz").symlink_to(backup)
    target = f"upload@localhost:/draupnir/image_uploads/{image['id']}"
    run("scp", *service.ssh_options(), "db_backup.tar.gz", target, cwd=tmp_path)

    status, text = curl(service, "POST", f"/images/{image['id']}/done")
    assert status == 200, text
    assert json.loads(text)["data"]["id"] == image["id"]
    assert json.loads(text)["data"]["attributes"]["ready"] is True

    status, text = curl(service, "GET", "/images")
    assert status == 200
    (listed,) = [item for item in json.loads(text)["data"] if item["id"] == image["id"]]
    assert listed["attributes"]["anonymisation_script"] == "\\c my_db\nDELETE FROM secret_tokens;"
    status, text = curl(service, "GET", f"/images/{image['id']}")
    assert (status, json.loads(text)["data"]) == (200, listed)

    request = json.dumps({"data": {"type": "instances", "attributes": {"image_id": image["id"]}}})
    status, text = curl(service, "POST", "/instances", request)
    assert status == 201, text
    instance = json.loads(text)["data"]
    assert instance["type"] == "instances"
    assert instance["attributes"]["image_id"] == image["id"]
    assert re.fullmatch(r"\d+", instance["attributes"]["port"]), "the port is a string"
    assert TIME.fullmatch(instance["attributes"]["created_at"])
    status, text = curl(service, "GET", "/instances")
    assert (status, [item["id"] for item in json.loads(text)["data"]]) == (200, [instance["id"]])
    status, text = curl(service, "GET", f"/instances/{instance['id']}")
    assert (status, json.loads(text)["data"]["attributes"]["port"]) == (200, instance["attributes"]["port"])

    assert service.answer(instance["id"], "SELECT count(*) FROM secret_tokens") == "0"
    # The brief's script only empties that table.
    assert CANARY in service.answer(instance["id"], "SELECT email FROM users LIMIT 1")

    assert curl(service, "DELETE", f"/instances/{instance['id']}") == (204, "")
    assert curl(service, "DELETE", f"/images/{image['id']}") == (204, "")


def test_the_brief_s_escape_is_not_json_and_the_answer_says_what_to_write(service: Service) -> None:
    status, text = curl(service, "POST", "/images", BODY.replace("\\\\c", "\\c"))
    assert status == 400
    (error,) = json.loads(text)["errors"]
    assert error["code"] == "invalid_json"
    assert "line 6" in error["detail"]
    assert "\\\\c" in error["detail"]


def test_the_command_lines_of_the_brief(service: Service, image: int, tmp_path: Path) -> None:
    """authenticate, images list, instances create, eval $(… env …) and psql, instances destroy, help."""
    home = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    home.pop("DRAUPNIR_TOKEN", None)

    def shell(line: str, given: str = "") -> str:
        done = subprocess.run(
            ["bash", "-ec", line], env=home, input=given, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    shell("draupnir-client authenticate --token-file -", given=service.token)
    assert f"{image} " in shell("draupnir-client images list")
    shell(f"draupnir-client instances create {image}")
    listed = json.loads(shell("draupnir-client --output json instances list"))
    (instance_id,) = [item["id"] for item in listed]
    script = f"eval $(draupnir-client env {instance_id})\npsql -d my_db -XAtc 'SELECT count(*) FROM secret_tokens'"
    assert shell(script).strip() == "0"
    # PGHOST=my-draupnir.tld PGPORT=5678 psql my-db; env also exports the certificate, which the brief did not have.
    port = listed[0]["attributes"]["port"]
    environment = f"eval $(draupnir-client env {instance_id})\nunset PGHOST PGPORT"
    line = f"PGHOST=localhost PGPORT={port} psql my_db -XAt"
    assert shell(f"{environment}\n{line}", given="SELECT count(*) FROM secret_tokens").strip() == "0"
    line = f"draupnir-client psql {instance_id} -- -d my_db -XAtc 'SELECT count(*) FROM secret_tokens'"
    assert shell(line).strip() == "0"
    shell(f"draupnir-client instances destroy {instance_id}")
    assert "authenticate" in shell("draupnir-client help")
    assert "finalise" in shell("draupnir-client images help")


def test_new_gives_a_database_in_one_line(service: Service, image: int) -> None:
    script = "eval $(draupnir-client new); psql -d my_db -XAtc 'SELECT count(*) FROM users'"
    environment = {**os.environ, "DRAUPNIR_TOKEN": service.token}
    done = run("bash", "-ec", script, env=environment)
    assert done.stdout.strip() == "5000"
    for item in service.ask("GET", "/instances").json()["data"]:
        service.destroy_instance(item["id"])


@pytest.mark.parametrize("token", [None, "", "wrong", "Bearer"])
def test_a_request_without_the_secret_is_refused(service: Service, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}".strip()}
    for path in ("/images", "/images/1", "/instances"):
        assert httpx.get(URL + path, headers=headers).status_code == 401
    assert httpx.get(URL + "/health_check").json() == {"status": "ok"}
