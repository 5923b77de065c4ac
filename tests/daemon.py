"""Shared steps of the operations' tests: create resources, start another daemon, check the invariants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from draupnir.callers import Caller, Reach, Role
from draupnir.models import Image, ImageStatus, Instance, InstanceStatus
from draupnir.operations import images, instances, reconcile
from draupnir.operations.context import Context
from draupnir.operations.tasks import Tasks
from draupnir.settings import Settings
from tests.fakes import CIPHER, Disk, FakeHelper

CALLER = Caller("upload", Role.ADMIN, Reach.ALL)
BACKED_UP_AT = datetime(2017, 5, 1, 12, tzinfo=UTC)
SCRIPT = "\\c my_db\nDELETE FROM secret_tokens;"


def settings_on(dsn: str) -> Settings:
    """Ten ports, no pool and direct instances allowed."""
    return Settings(
        database_url=dsn,
        public_hostname="db.example.org",
        min_instance_port=20000,
        max_instance_port=20010,
        pool_size=0,
        direct_instances=True,
    )


def fake(context: Context) -> FakeHelper:
    assert isinstance(context.helper, FakeHelper)
    return context.helper


async def uploaded_image(context: Context, script: str = SCRIPT) -> Image:
    image = await images.create(context, BACKED_UP_AT, script)
    fake(context).upload(image.id)
    return image


async def ready_image(context: Context) -> Image:
    image = await images.finalise(context, (await uploaded_image(context)).id, wait=True)
    await settle(context)
    return image


async def new_instance(context: Context, image: Image) -> Instance:
    instance, _ = await instances.create(context, CALLER, image.id)
    return instance


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the condition holds; fail after a timeout."""
    async with asyncio.timeout(5):
        while True:
            if await holds():
                return
            await asyncio.sleep(0)


async def settle(context: Context) -> None:
    """Wait until no task is running."""
    while running := list(context.tasks._running.values()):
        await asyncio.wait(running)


def another_daemon(context: Context, disk: Disk) -> Context:
    """Return a new daemon after a crash: the same metadata and disk, empty memory."""
    helper = FakeHelper(disk)
    return Context(context.settings, context.store, helper, Tasks(), context.probe, helper.wake, cipher=CIPHER)


async def converge(context: Context) -> None:
    """Run as many passes as in thirty seconds."""
    for _ in range(3):
        await reconcile.reconcile_once(context)
        await settle(context)


async def assert_lawful(context: Context) -> None:
    """Check that metadata and disk agree, and that no work is incomplete."""
    disk = fake(context).disk
    rows = await context.store.images.list_all()
    assert {row.status for row in rows} <= {ImageStatus.AWAITING_UPLOAD, ImageStatus.READY, ImageStatus.FAILED}
    ready = {row.id for row in rows if row.status is ImageStatus.READY}
    assert disk.uploads.keys() == {row.id for row in rows} - ready
    assert disk.images.keys() == ready
    assert not disk.seals
    assert not disk.work
    assert not disk.jobs
    for row in rows:
        if row.status is ImageStatus.READY:
            # It was extracted once, and the script ran once.
            assert disk.images[row.id] == f"a backup | {row.anonymisation_script}"
    meant = await context.store.instances.list_all()
    assert {row.status for row in meant} <= {InstanceStatus.RUNNING, InstanceStatus.CLOSED}
    assert disk.instances == {row.id: row.image_id for row in meant}
    assert disk.listening == {row.id: row.port for row in meant if row.status is InstanceStatus.RUNNING}
    assert disk.trash == 0


async def end(task: asyncio.Task[None]) -> None:
    """Cancel until it has effect: before Python 3.12 asyncio.wait_for, which psycopg uses, may lose a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1)
