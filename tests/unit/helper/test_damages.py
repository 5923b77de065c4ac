"""Laws of damaged data: Postgres's message is recognised and located, and none of its text is published."""

from __future__ import annotations

import pytest

from draupnir_helper import postgres
from draupnir_helper.jobs import damages
from draupnir_helper.jobs.damages import Damage

MAJOR = postgres.installed_majors()[-1]
PSQL = "psql:script.sql:3: ERROR:  "


@pytest.mark.parametrize(
    ("text", "damage"),
    [
        (
            f"{PSQL}XX001: invalid page in block 5 of relation base/16384/16401",
            Damage("XX001", "base/16384/16401", 16384, 0, 16401),
        ),
        (
            f'{PSQL}58P01: could not open file "base/16384/16401": No such file or directory',
            Damage("58P01", "base/16384/16401", 16384, 0, 16401),
        ),
        (
            'XX001 ERROR:  could not read blocks 5..5 in file "base/5/16401": read only 0 of 8192 bytes',
            Damage("XX001", "base/5/16401", 5, 0, 16401),
        ),
        (
            'XX001 ERROR:  invalid page in block 0 of relation "pg_tblspc/16390/PG_17_202406281/16384/16401"',
            Damage("XX001", "pg_tblspc/16390/PG_17_202406281/16384/16401", 16384, 16390, 16401),
        ),
        (
            "XX001 FATAL:  invalid page in block 0 of relation global/1262",
            Damage("XX001", "global/1262", 0, 1664, 1262),
        ),
        (
            f'{PSQL}58P01: could not access status of transaction 9\nDETAIL:  Could not open file "pg_xact/0004": No',
            Damage("58P01", "pg_xact/0004"),
        ),
        (f"{PSQL}XX001: missing chunk number 0 for toast value 7 in pg_toast_16401", Damage("XX001", toasted=16401)),
        (
            f'{PSQL}XX002: index "orders_pkey" contains unexpected zero page at block 3',
            Damage("XX002", index_name="orders_pkey"),
        ),
    ],
)
def test_damage_is_recognised_and_located(text: str, damage: Damage) -> None:
    assert damages.found(f"first line\n{text}\nlast line") == damage


@pytest.mark.parametrize(
    "text",
    [
        f'{PSQL}58P01: could not access file "$libdir/vector": No such file or directory',
        f'{PSQL}58P01: could not open file "/etc/base/1/2/nothing"',
        f"{PSQL}23505: duplicate key XX001: invalid page in block 5 of relation base/16384/16401",
        "XX001 LOG:  invalid page in block 5 of relation base/16384/16401",
        "NOTICE:  XX001: invalid page in block 5 of relation base/16384/16401",
        f'{PSQL}42P01: relation "base/16384/16401" does not exist',
        "",
    ],
)
def test_other_failures_are_not_damage(text: str) -> None:
    assert damages.found(text) is None


def test_only_recognised_damage_is_published() -> None:
    text = f'{PSQL}XX001: invalid page in block 5 of relation base/16384/16401 "secret row"'
    damage = damages.found(text)
    assert damage is not None
    error = damages.failure(MAJOR, damage, "", text)
    assert error.code == "backup_damaged"
    assert "base/16384/16401" in error.detail
    assert "XX001 (data_corrupted)" in error.detail
    assert "secret" not in error.detail
    assert "secret" in error.private
