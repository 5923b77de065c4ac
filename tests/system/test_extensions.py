"""Users create the extensions that the operator lists, beside those that Postgres trusts, and no others."""

from __future__ import annotations

import pytest

from tests.system.backups import BINARIES
from tests.system.faults import configured
from tests.system.service import Service, run


def restore_into_another_database(service: Service, instance_id: int) -> None:
    """Restore a dump of one database with extensions into another one, as a user of the instance."""
    service.psql(instance_id, "CREATE DATABASE one")
    service.psql(instance_id, "CREATE DATABASE two")
    content = "CREATE EXTENSION pg_buffercache; CREATE EXTENSION hstore; CREATE TABLE t AS SELECT 'a=>1'::hstore AS x"
    service.psql(instance_id, content, "one")
    environment = service.environment(instance_id)
    dump = run(BINARIES / "pg_dump", env={**environment, "PGDATABASE": "one"}).stdout
    run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", input=dump, env={**environment, "PGDATABASE": "two"})
    assert service.answer(instance_id, "SELECT x -> 'a' FROM t", "two") == "1"
    for database in ("one", "two"):
        service.psql(instance_id, f"DROP DATABASE {database}")


@pytest.mark.parametrize("attributes", [{}, {"network": "direct"}], ids=["proxied", "direct"])
def test_a_listed_extension_can_be_created_and_another_one_cannot(
    service: Service, image: int, attributes: dict[str, str]
) -> None:
    with configured(service, 'trusted_extensions = ["pg_buffercache", "not_installed"]\n'):
        answer = service.ask("POST", "/instances", {"image_id": image, **attributes})
        assert answer.status_code == 201, answer.text
        instance_id = int(answer.json()["data"]["id"])
        service.psql(instance_id, "CREATE EXTENSION pg_buffercache")
        service.psql(instance_id, "CREATE EXTENSION hstore")
        restore_into_another_database(service, instance_id)
        refused = service.psql(instance_id, "CREATE EXTENSION pageinspect", ok=False)
        assert "permission denied to create extension" in refused.stderr
    # Another start of the server does without.
    assert service.ask("POST", f"/instances/{instance_id}/restart").status_code == 200
    service.psql(instance_id, "DROP EXTENSION pg_buffercache")
    refused = service.psql(instance_id, "CREATE EXTENSION pg_buffercache", ok=False)
    assert "permission denied to create extension" in refused.stderr
    service.destroy_instance(instance_id)
