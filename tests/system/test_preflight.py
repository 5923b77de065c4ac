"""Before the script runs, one error lists everything that the server lacks, with the remedies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.backups import MAJOR, Source
from tests.system.faults import configured
from tests.system.service import Service, run

NEEDS = """
UPDATE pg_proc SET probin = '$libdir/vector' WHERE probin = '$libdir/pg_trgm';
CREATE TEXT SEARCH DICTIONARY german (TEMPLATE = ispell, DictFile = ispell_sample, AffFile = ispell_sample);
UPDATE pg_ts_dict SET dictinitoption = replace(dictinitoption, 'ispell_sample', 'de_de') WHERE dictname = 'german';
CREATE TABLE fast (x int) TABLESPACE ssd;
CREATE DATABASE words;
UPDATE pg_database SET datcollate = 'de_XX.UTF-8', datctype = 'de_XX.UTF-8' WHERE datname = 'words';
"""
OBSERVED = "SELECT count(*) FROM pg_stat_statements"
FOREIGN = "UPDATE pg_database SET datcollate = 'de_XX.UTF-8', datctype = 'de_XX.UTF-8'"


@pytest.fixture
def needy(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    """A copy of the source that runs, to be changed."""
    copy = Source.copy_of(source, tmp_path_factory.mktemp("needy"))
    run("install", "-d", "-o", "postgres", copy.directory / "ssd")
    copy.start()
    yield copy
    shutil.rmtree(copy.directory)


def refused(service: Service, backup: Path) -> tuple[str, list[dict[str, str]]]:
    """The detail of a failed preflight, and the rows of the report."""
    image_id = service.create_image(script="SELECT no_script_runs();")
    service.upload(image_id, backup)
    answer = service.finalise(image_id)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["code"] == "preflight_failed", error
    rows = service.ask("GET", f"/images/{image_id}/report").json()["data"]["attributes"]["rows"]
    service.destroy_image(image_id)
    return str(error["detail"]), rows


def test_all_missing_parts_are_named_with_the_package_or_command(service: Service, needy: Source) -> None:
    needy.sql(f"CREATE TABLESPACE ssd LOCATION '{needy.directory}/ssd'", "postgres")
    needy.script(NEEDS)
    needy.stop()
    detail, rows = refused(service, needy.tarball("needy.tar.zst", "--zstd", "--exclude=./pg_tblspc/*"))
    for words in (
        f"apt install postgresql-{MAJOR}-pgvector",
        "tsearch_data/de_de.dict",
        "tsearch_data/de_de.affix",
        "localedef -i de_XX -f UTF-8 de_XX.UTF-8",
        "tablespace ssd",
    ):
        assert words in detail, detail
    found = {(row["code"], row["database"], row["object"]) for row in rows}
    assert found >= {
        ("library_missing", "my_db", "pg_trgm"),
        ("dictionary_missing", "my_db", "public.german"),
        ("locale_missing", "words", "de_XX.UTF-8"),
        ("tablespace_missing", "my_db", "ssd"),
    }


def test_a_locale_that_the_whole_cluster_needs_is_named(service: Service, needy: Source) -> None:
    needy.sql(FOREIGN)
    needy.stop()
    detail, _ = refused(service, needy.tarball("foreign.tar.zst", "--zstd"))
    assert "localedef -i de_XX -f UTF-8 de_XX.UTF-8" in detail


@pytest.fixture
def observed(needy: Source) -> Path:
    """A backup of a source that preloads two libraries, one of them for an extension of the data."""
    needy.sql("CREATE EXTENSION pg_stat_statements")
    needy.sql("ALTER SYSTEM SET shared_preload_libraries = 'auto_explain, pg_stat_statements'")
    needy.stop()
    return needy.tarball("observed.tar.zst", "--zstd")


def rows_of(service: Service, image_id: int) -> set[tuple[str, str]]:
    rows = service.ask("GET", f"/images/{image_id}/report").json()["data"]["attributes"]["rows"]
    return {(row["code"], row["object"]) for row in rows}


def test_an_allowed_library_of_the_source_is_preloaded_and_another_reported(service: Service, observed: Path) -> None:
    image_id = service.create_image(script="SELECT 1;")
    service.upload(image_id, observed)
    assert service.finalise(image_id).status_code == 200
    found = rows_of(service, image_id)
    assert ("library_not_preloaded", "auto_explain") in found
    assert not {code for code, name in found if name == "pg_stat_statements"}
    instance_id = int(service.create_instance(image_id)["id"])
    assert service.answer(instance_id, OBSERVED).isdigit()
    kept = Path(f"/srv/draupnir/image_snapshots/{image_id}/pg_stat/pg_stat_statements.stat")
    assert kept.parent.exists()
    assert not kept.exists(), "statements of the script"
    # Another start of an instance does without a library that is no longer allowed.
    with configured(service, "allowed_preload_libraries = []\n"):
        assert service.ask("POST", f"/instances/{instance_id}/restart").status_code == 200
        assert "must be loaded via" in service.psql(instance_id, OBSERVED, ok=False).stderr
    service.destroy_instance(instance_id)
    service.destroy_image(image_id)


def test_without_its_library_an_extension_is_reported_or_fails_the_image(service: Service, observed: Path) -> None:
    with configured(service, "allowed_preload_libraries = []\n"):
        image_id = service.create_image(script="SELECT 1;")
        service.upload(image_id, observed)
        assert service.finalise(image_id).status_code == 200
        assert ("preload_missing", "pg_stat_statements") in rows_of(service, image_id)
        service.destroy_image(image_id)
    with configured(service, "allowed_preload_libraries = []\nrequire_extensions = true\n"):
        detail, _ = refused(service, observed)
    assert 'Add "pg_stat_statements" to allowed_preload_libraries' in detail
