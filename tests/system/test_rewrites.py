"""A rewrite that ends in the middle, for want of room or by a kill, publishes nothing and leaves nothing."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator

import pytest

from tests.system.backups import Source
from tests.system.faults import await_that, configured, kill, processes
from tests.system.service import Service

# The rewrite of the table evaluates its index, whose function then does what the script has prepared.
CONTENT = """
CREATE TABLE filler (x text);
CREATE TABLE people (id int, name text);
INSERT INTO people SELECT i, 'Jane Doe, number ' || i FROM generate_series(1, 1000) i;
CREATE FUNCTION fill() RETURNS void LANGUAGE sql VOLATILE AS $$
  INSERT INTO public.filler SELECT pg_catalog.repeat(pg_catalog.md5(i::pg_catalog.text), 32)
    FROM pg_catalog.generate_series(1, 1000000) i
$$;
CREATE FUNCTION rewritten(name text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_class WHERE relname = 'sleeping') THEN
    PERFORM pg_catalog.pg_sleep(3600);
  ELSIF EXISTS (SELECT FROM pg_catalog.pg_class WHERE relname = 'filling') THEN
    PERFORM public.fill();
  END IF;
  RETURN name;
END $$;
CREATE INDEX ON people (rewritten(name));
"""
SCRIPT = "\\c my_db\nUPDATE people SET name = 'user ' || id;\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    made = Source.empty(tmp_path_factory.mktemp("rewrites"), "--locale=C.UTF-8")
    made.start()
    made.sql("CREATE DATABASE my_db", "postgres")
    made.script(CONTENT)
    made.stop()
    return made


@pytest.fixture
def image_id(service: Service, source: Source) -> Iterator[int]:
    made = service.create_image(SCRIPT)
    service.upload(made, source.tarball("rewrites.tar"))
    yield made
    assert service.image(made)["status"] == "failed"
    service.ask("PATCH", f"/images/{made}", {"anonymisation_script": SCRIPT})
    assert service.finalise(made).status_code == 200, "the upload is retained, and the next finalise succeeds"
    service.destroy_image(made)


def test_a_rewrite_without_room_fails_the_image(service: Service, image_id: int) -> None:
    service.ask("PATCH", f"/images/{image_id}", {"anonymisation_script": f"{SCRIPT}CREATE TABLE filling ();"})
    with configured(service, 'max_image_bytes = "150M"\n'):
        answer = service.finalise(image_id)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (507, "no_room"), answer.text


def test_a_job_that_is_killed_in_a_rewrite_fails_the_image(service: Service, image_id: int) -> None:
    service.ask("PATCH", f"/images/{image_id}", {"anonymisation_script": f"{SCRIPT}CREATE TABLE sleeping ();"})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.finalise, image_id)
        unit = f"draupnir-finalise-{image_id}.service"
        await_that(lambda: "vacuuming" in str(service.image(image_id)["progress"]), "the rewrite has begun")
        await_that(lambda: processes(unit), f"{unit} runs")
        kill(unit)
    (error,) = answer.result().json()["errors"]
    assert error["code"] == "job_killed", error
