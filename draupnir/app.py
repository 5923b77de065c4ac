"""Composition root of the daemon's application: routes, error answers, middleware, and the lifespan of its loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from draupnir import errors
from draupnir.api import auth, problems
from draupnir.api.edge import Edge
from draupnir.api.limits import Limits
from draupnir.api.routes import ROUTES
from draupnir.operations import authorities, disk, offboarding, pool, reconcile
from draupnir.operations.context import Context

log = logging.getLogger(__name__)

STORE_RETRY_S = 2.0
RESTART_S = 10.0


def create_app(context: Context, secret: bytes) -> Starlette:
    """Return the ASGI application; while it runs, it reconciles, fills the pool and watches the disk."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        opened = asyncio.Event()
        await _try_to_open(context, opened)
        background = [
            asyncio.create_task(_keep_trying_to_open(context, opened)),
            asyncio.create_task(_forever(reconcile.run, context, opened)),
            asyncio.create_task(_forever(disk.run, context, opened)),
            asyncio.create_task(_forever(pool.run, context, opened)),
            asyncio.create_task(_forever(offboarding.run, context, opened)),
        ]
        try:
            yield
        finally:
            for task in background:
                await _end(task)
            await context.tasks.close()
            await context.store.close()

    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Edge, settings=context.settings)],
        exception_handlers={
            errors.DraupnirError: problems.answer_error,
            HTTPException: problems.answer_routing,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.context = context
    app.state.identify = auth.known_to(context, secret)
    app.state.limits = Limits()
    return app


async def _try_to_open(context: Context, opened: asyncio.Event) -> None:
    """Open the store. Until the store answers, the service returns an error to each caller."""
    try:
        await context.store.open()
        await authorities.encrypt_plain(context)
    except errors.MetadataUnavailable as error:
        await context.store.close()
        log.warning("the metadata does not answer yet: %s", error.detail)
    else:
        opened.set()


async def _keep_trying_to_open(context: Context, opened: asyncio.Event) -> None:
    while not opened.is_set():
        await asyncio.sleep(STORE_RETRY_S)
        await _try_to_open(context, opened)


async def _forever(loop: Callable[[Context], Awaitable[None]], context: Context, opened: asyncio.Event) -> None:
    await opened.wait()
    while True:
        try:
            await loop(context)
        except Exception:
            # The outermost handler of background work: an error in one pass must not prevent later ones.
            log.exception("%s failed with an unexpected error and restarts", loop.__module__)
            await asyncio.sleep(RESTART_S)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel until the task ends: before Python 3.12 asyncio.wait_for, which psycopg uses, may lose a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1)
