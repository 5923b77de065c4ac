"""Composition root of the daemon's application: routes, error answers, the edge, and the life of store and tasks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from draupnir import errors
from draupnir.api import auth, problems
from draupnir.api.edge import Edge
from draupnir.api.routes import ROUTES
from draupnir.operations import reconcile
from draupnir.operations.context import Context

log = logging.getLogger(__name__)

STORE_RETRY_S = 2.0
RECONCILER_RESTART_S = 10.0


def create_app(context: Context, secret: bytes) -> Starlette:
    """The service as an ASGI application; its lifespan opens the store, reconciles for ever, and closes the store."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        opened = await _open_store(context)
        background = asyncio.create_task(_reconcile(context, opened), name="reconcile")
        try:
            yield
        finally:
            await _end(background)
            await context.tasks.close()
            await context.store.close()

    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Edge)],
        exception_handlers={
            errors.DraupnirError: problems.answer_error,
            HTTPException: problems.answer_routing,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.context = context
    app.state.identify = auth.shared_secret(secret)
    return app


async def _open_store(context: Context) -> bool:
    """Whether the metadata answered; while it does not, the service says so to whoever asks."""
    try:
        await context.store.open()
    except errors.MetadataUnavailable as error:
        log.warning("the metadata does not answer yet: %s", error.detail)
        return False
    return True


async def _reconcile(context: Context, opened: bool) -> None:
    while not opened:
        await asyncio.sleep(STORE_RETRY_S)
        opened = await _open_store(context)
    while True:
        try:
            await reconcile.run(context)
        except Exception:
            # The edge of all work that no request waits for: a fault in one pass must not end all later ones.
            log.exception("the reconciler broke; it starts again")
            await asyncio.sleep(RECONCILER_RESTART_S)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancels until it has effect: before Python 3.12 asyncio.wait_for, with which psycopg waits, may lose one."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1)
