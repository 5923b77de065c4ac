"""The metadata in Postgres; the only package that imports psycopg. Raises MetadataUnavailable and NoRoom."""

from __future__ import annotations

from draupnir.store import migrate
from draupnir.store.addresses import Addresses
from draupnir.store.ceilings import Ceilings
from draupnir.store.database import Database
from draupnir.store.events import Events
from draupnir.store.images import Images
from draupnir.store.instances import Instances
from draupnir.store.retention import Retention
from draupnir.store.sign_ins import SignIns
from draupnir.store.tokens import Tokens
from draupnir.store.users import Users


class Store:
    """The metadata store. Call `open` first."""

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn)
        self.images = Images(self._database)
        self.instances = Instances(self._database)
        self.events = Events(self._database)
        self.retention = Retention(self._database)
        self.ceilings = Ceilings(self._database)
        self.addresses = Addresses(self._database)
        self.users = Users(self._database)
        self.tokens = Tokens(self._database)
        self.sign_ins = SignIns(self._database)

    async def open(self, *, migrating: bool = True) -> None:
        """Connect and migrate the schema, or only check it; can be called again after an error.

        Raises MetadataUnavailable, or its subclasses: SchemaTooNew if a newer Draupnir has migrated the database, and
        SchemaTooOld if a migration is necessary but not allowed.
        """
        await self._database.open()
        try:
            if migrating:
                await migrate.run(self._database)
            else:
                await migrate.check(self._database)
        except BaseException:
            await self._database.close()
            raise

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()

    async def ping(self) -> None:
        """Return if the database answers a query. Raises MetadataUnavailable."""
        async with self._database.connection() as connection:
            await connection.execute("SELECT 1")
