"""Django reads all parameters except the name of the database from PG*."""

import os
import sys

from django.conf import settings  # type: ignore[import-not-found]

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"]}})

from django.db import connection  # type: ignore[import-not-found]  # noqa: E402 - it reads the settings

with connection.cursor() as cursor:
    cursor.execute(sys.argv[1])
    print(cursor.fetchone()[0], end="")
