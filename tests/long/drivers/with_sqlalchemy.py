"""SQLAlchemy reads all parameters from PG*, or the URL of `env --format url` with the driver's name in it."""

import os
import sys

from sqlalchemy import create_engine, text  # type: ignore[import-not-found]

url = os.environ.get("DATABASE_URL", "postgresql://").replace("postgresql:", "postgresql+psycopg:", 1)
with create_engine(url).connect() as connection:
    print(connection.execute(text(sys.argv[1].replace(":", r"\:"))).scalar_one(), end="")
