"""pg8000 needs a context of `ssl`, and takes only host, port, user and database by name."""

import os
import ssl
import sys

import pg8000.dbapi  # type: ignore[import-not-found]

context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
context.load_cert_chain(os.environ["PGSSLCERT"], os.environ["PGSSLKEY"])
connection = pg8000.dbapi.connect(
    user=os.environ["PGUSER"],
    host=os.environ["PGHOST"],
    port=int(os.environ["PGPORT"]),
    database=os.environ["PGDATABASE"],
    ssl_context=context,
)
cursor = connection.cursor()
cursor.execute(sys.argv[1])
print(cursor.fetchone()[0], end="")
connection.close()
