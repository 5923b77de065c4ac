"""Laws of the preflight: only missing parts are reported, each with the right remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from draupnir_helper import postgres
from draupnir_helper.jobs import preflight
from draupnir_helper.jobs.preflight import Need
from draupnir_helper.jobs.reports import JobError
from draupnir_helper.jobs.rows import Row, Rows

MAJOR = postgres.installed_majors()[-1]


def found(data: Path, *needs: Need, preloaded: tuple[str, ...] = ()) -> list[Row]:
    return list(preflight.problems(MAJOR, data, needs, preloaded))


@pytest.mark.parametrize(
    "need",
    [
        Need("library", "$libdir/plpgsql", "plpgsql"),
        Need("library", "$libdir/plpgsql.so", "plpgsql"),
        Need("library", "plpgsql", ""),
        Need("library", "/srv/pgdata/evil.so", ""),
        Need("library", "$libdir/../evil", ""),
        Need("library", "", ""),
        Need("extension", "plpgsql", ""),
        Need("extension", "../evil", ""),
        Need("dictionary", "stopwords=english", "public.d"),
        Need("dictionary", "dictfile=ispell_sample", "public.d"),
        Need("dictionary", "dictfile=thesaurus_sample", "public.d"),
        Need("dictionary", "language=klingon", "public.d"),
        Need("dictionary", "dictfile=../../../evil", "public.d"),
        Need("locale", "C", "database d"),
        Need("locale", "POSIX", "database d"),
        Need("locale", "C.UTF-8", "database d"),
    ],
)
def test_a_need_that_the_server_meets_is_not_a_problem(tmp_path: Path, need: Need) -> None:
    assert found(tmp_path, need) == []


@pytest.mark.parametrize(
    ("need", "code", "remedy"),
    [
        (
            Need("library", "$libdir/vector", "vector", "d"),
            "library_missing",
            f"apt install postgresql-{MAJOR}-pgvector",
        ),
        (Need("library", "$libdir/pgaudit", "", "d"), "library_missing", f"apt install postgresql-{MAJOR}-pgaudit"),
        (Need("library", "$libdir/plperl", "plperlu", "d"), "library_missing", f"postgresql-plperl-{MAJOR}"),
        (Need("library", "$libdir/postgis-3", "postgis", "d"), "library_missing", f"postgresql-{MAJOR}-postgis-3"),
        (Need("library", "$libdir/ours", "", "d"), "library_missing", f"/usr/lib/postgresql/{MAJOR}/lib/ours.so"),
        (Need("extension", "pgtap", "", "d"), "extension_missing", f"postgresql-{MAJOR}-pgtap"),
        (Need("extension", "ours", "", "d"), "extension_missing", f"postgresql/{MAJOR}/extension/ours.control"),
        (Need("extension", "pg_stat_statements", "", "d"), "preload_missing", "allowed_preload_libraries"),
        (Need("dictionary", "dictfile=de_de", "public.german", "d"), "dictionary_missing", "pg_updatedicts"),
        (Need("locale", "de_XX.utf8", "database d", "d"), "locale_missing", "localedef -i de_XX -f UTF-8 de_XX.utf8"),
        (
            Need("locale", "de_XX.ISO-8859-15@euro", "database d", "d"),
            "locale_missing",
            "localedef -i de_XX@euro -f ISO-8859-15 de_XX.ISO-8859-15@euro",
        ),
        # localedef does not know iso885915, and the character set of ru_XX is not in its name.
        (Need("locale", "de_XX.iso885915@euro", "database d", "d"), "locale_missing", "Run `apt install locales-all`"),
        (Need("locale", "ru_XX", "database d", "d"), "locale_missing", "Run `apt install locales-all`"),
        (Need("locale", "x; rm -rf /", "database d", "d"), "locale_missing", "locales-all"),
        (
            Need("tablespace", "16400", "ssd", "d"),
            "tablespace_missing",
            "pack the stopped server with `tar --dereference`, and upload the archive to a new image",
        ),
    ],
)
def test_a_need_that_the_server_does_not_meet_is_reported_with_its_remedy(
    tmp_path: Path, need: Need, code: str, remedy: str
) -> None:
    (row,) = found(tmp_path, need)
    assert row.code == code
    assert row.database == "d"
    assert remedy in row.remedy
    assert "rm -rf" not in row.remedy


def test_a_preloaded_library_is_not_a_problem(tmp_path: Path) -> None:
    need = Need("extension", "pg_stat_statements", "", "d")
    assert found(tmp_path, need, preloaded=("pg_stat_statements",)) == []


def test_a_library_of_the_operators_list_that_is_not_installed_is_named() -> None:
    assert list(preflight.listed(MAJOR, ("pg_stat_statements",))) == []
    (row,) = preflight.listed(MAJOR, ("pg_stat_statements", "pgaudit"))
    assert "lists pgaudit" in row.detail
    assert f"apt install postgresql-{MAJOR}-pgaudit" in row.remedy
    assert "remove it from the list and restart draupnir-helper" in row.remedy


def test_a_tablespace_with_its_files_is_not_a_problem(tmp_path: Path) -> None:
    (tmp_path / "pg_tblspc/16400/PG_17_202406281").mkdir(parents=True)
    assert found(tmp_path, Need("tablespace", "16400", "ssd", "d")) == []


def test_one_failure_lists_all_problems_once(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    needs = [Need("library", "$libdir/vector", "vector", name) for name in ("a", "b")]
    needs += [Need("locale", "de_XX.UTF-8", "database a"), Need("extension", "pg_stat_statements", "", "a")]
    with pytest.raises(JobError) as caught:
        preflight.refuse(found(tmp_path, *needs), rows)
    assert caught.value.code == "preflight_failed"
    assert caught.value.detail.count("pgvector") == 1
    assert "1. " in caught.value.detail
    assert "2. " in caught.value.detail
    assert "pg_stat_statements" not in caught.value.detail
    assert [row.code for row in rows] == ["library_missing", "library_missing", "locale_missing", "preload_missing"]


def test_a_gap_that_makes_no_image_impossible_is_only_reported(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    preflight.refuse(found(tmp_path, Need("extension", "pg_stat_statements", "", "a")), rows)
    assert [row.code for row in rows] == ["preload_missing"]


def test_a_locale_is_read_from_the_message_of_a_refused_connection(tmp_path: Path) -> None:
    message = (
        'psql: error: connection to server on socket "/tmp/cluster/.s.PGSQL.5432" failed: FATAL:  database locale is'
        ' incompatible with operating system\nDETAIL:  The database was initialized with LC_COLLATE "de_XX.UTF-8", '
        " which is not recognized by setlocale().\n"
    )
    with pytest.raises(JobError, match="localedef -i de_XX -f UTF-8 de_XX.UTF-8"):
        preflight.refuse_locale(message, Rows(tmp_path))
    preflight.refuse_locale('FATAL:  role "postgres" does not exist', Rows(tmp_path))


def test_the_operator_can_require_every_extension(tmp_path: Path) -> None:
    needs = [Need("extension", "pg_stat_statements", "", "a"), Need("extension", "unknown_one", "", "a")]
    with pytest.raises(JobError, match=r"allowed_preload_libraries.*unknown_one"):
        preflight.refuse(found(tmp_path, *needs), Rows(tmp_path), require_extensions=True)
