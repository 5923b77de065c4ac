"""Nobody becomes superuser in an instance: not through what an ordinary source holds, nor what a hostile one plants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system import world
from tests.system.backups import Source
from tests.system.service import Service

# A source with everything at once; each of it was seen to make draupnir a superuser or to show what was dropped.
EVENT_TRIGGERS = """
CREATE FUNCTION audit_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE EVENT TRIGGER audit ON ddl_command_end EXECUTE FUNCTION audit_ddl();
CREATE EVENT TRIGGER audit_always ON ddl_command_start EXECUTE FUNCTION audit_ddl();
ALTER EVENT TRIGGER audit_always ENABLE ALWAYS;
ALTER DATABASE my_db SET event_triggers = on;
ALTER DATABASE my_db SET work_mem = '5MB';
ALTER ROLE ALL SET session_replication_role = 'local';
ALTER ROLE app SET session_preload_libraries = 'auto_explain';
"""
SOURCE = (EVENT_TRIGGERS,)


@pytest.fixture(scope="module")
def climbable(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An image of that source."""
    source = Source(tmp_path_factory.mktemp("climbable"))
    source.start()
    for statements in SOURCE:
        source.sql(statements)
    source.stop()
    before = world.observe()
    image_id = service.make_image(source.tarball("climbable.tar"))
    yield image_id
    service.destroy_image(image_id)
    world.await_equal(before)


@pytest.fixture
def climber(service: Service, climbable: int) -> Iterator[int]:
    """An instance of it."""
    instance_id = int(service.create_instance(climbable)["id"])
    yield instance_id
    service.destroy_instance(instance_id)


def climbs(signature: str, result: str = "") -> str:
    """A function's body that makes draupnir superuser when a superuser runs it."""
    return f"""
        CREATE OR REPLACE FUNCTION {signature} LANGUAGE plpgsql AS $$ BEGIN
          ALTER ROLE draupnir SUPERUSER; {result}
        EXCEPTION WHEN insufficient_privilege THEN {result} END $$;"""


def is_superuser(service: Service, instance_id: int) -> bool:
    return service.answer(instance_id, "SELECT rolsuper FROM pg_roles WHERE rolname = 'draupnir'") == "t"


def test_a_trusted_extension_s_script_fires_no_event_trigger(service: Service, climber: int) -> None:
    service.psql(climber, climbs("audit_ddl() RETURNS event_trigger"))
    service.psql(climber, "CREATE EXTENSION hstore")
    assert not is_superuser(service, climber)
    assert service.answer(climber, "SELECT DISTINCT evtenabled FROM pg_event_trigger") == "D"
    assert service.psql(climber, "ALTER EVENT TRIGGER audit ENABLE", ok=False).returncode != 0
    assert service.psql(climber, "ALTER DATABASE my_db SET event_triggers = on", ok=False).returncode != 0


def test_no_role_or_database_has_a_setting_that_beats_the_command_line(service: Service, climber: int) -> None:
    """Others stay, as the application may need them."""
    assert service.answer(climber, "SELECT setconfig FROM pg_db_role_setting") == "{work_mem=5MB}"
